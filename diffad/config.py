"""Configurations: a frozen dataclass, filled from a YAML file, then from flags.

Scalars of the file are read as text and converted by the type of the field they fill, so `1e-4` is a float
and `no` is the word: YAML's own guesses (a string and `false`) play no part.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro
import yaml

from certify.checks import InputError

C = TypeVar("C")

# `--config` is read before tyro sees the words, so its list of options does not have it
FILE_HELP = "--config FILE reads options from a YAML file, lines such as 'seed: 0'; flags beside it win."
_NOTHING = ("", "null", "none", "~")
_TRUTH = {"true": True, "false": False}


def _convert(value: Any, hint: Any) -> Any:
    """Return a YAML value (text, or a list of texts) as the type `hint`; ValueError says what is allowed."""
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        wanted = next(option for option in options if option is not type(None))
        # `none` is nothing, except where it is one of the words to choose from
        if isinstance(value, str) and value.lower() in _NOTHING and value not in typing.get_args(wanted):
            return None
        return _convert(value, wanted)
    if origin is tuple:
        if not isinstance(value, list):
            raise ValueError(f"got {value!r}, need a list such as [32, 64]")
        return tuple(_convert(item, options[0]) for item in value)
    if not isinstance(value, str):
        raise ValueError(f"got a {type(value).__name__}, need one value")
    if origin is typing.Literal:
        if value not in options:
            raise ValueError(f"got {value!r}, allowed are {', '.join(map(str, options))}")
        return value
    if hint is bool:
        if value.lower() not in _TRUTH:
            raise ValueError(f"got {value!r}, allowed are true and false")
        return _TRUTH[value.lower()]
    try:
        return hint(value)
    except ValueError:
        raise ValueError(f"got {value!r}, need {'an integer' if hint is int else 'a number'}") from None


def read_config(config_class: type[C], path: Path | str, base: C | None = None) -> C:
    """Return `base` (the defaults of `config_class` if None) with the values of a YAML file put over it.

    Raises:
        InputError: no such file, not a mapping, an unknown key (one much like it is named, else all), or a value
            of the wrong type.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"--config: {path} is not a file")
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    values = {} if values in (None, "") else values
    if not isinstance(values, dict):
        raise InputError(f"{path}: need lines such as 'seed: 0', got a {type(values).__name__}")
    return override(base if base is not None else config_class(), values, source=str(path))


def override(config: C, values: Mapping[str, Any], *, source: str) -> C:
    """Return `config` with `values` (texts or lists of texts, as a YAML file gives them) put over it."""
    hints = typing.get_type_hints(type(config))
    known = [field.name for field in dataclasses.fields(config)]  # type: ignore[arg-type]
    converted = {}
    for key, value in values.items():
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"allowed are {', '.join(known)}"
            raise InputError(f"{source}: unknown key {key!r}; {hint}")
        try:
            converted[key] = _convert(value, hints[key])
        except ValueError as error:
            raise InputError(f"{source}: {key}: {error}") from None
    return dataclasses.replace(config, **converted)  # type: ignore[type-var]


def parse_config(
    config_class: type[C],
    argv: Sequence[str] | None = None,
    *,
    prog: str,
    description: str,
    presets: Mapping[str, Mapping[str, Any]] | None = None,
) -> C:
    """Read `--config FILE`, then the presets named by flags, then the other flags; the later wins.

    Flags are the fields of `config_class`, spelt with `_` or `-`. A wrong flag exits with 2 (tyro names the
    nearest one); a wrong file raises `InputError`.
    """
    presets = presets or {}
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, prog=prog)
    first.add_argument("--config", type=Path)
    for name in presets:
        first.add_argument(f"--{name}", action="store_true")
    chosen, rest = first.parse_known_args(argv)
    config = config_class() if chosen.config is None else read_config(config_class, chosen.config)
    for name, values in presets.items():
        if getattr(chosen, name):
            config = dataclasses.replace(config, **values)  # type: ignore[type-var]
    if "--config" not in description:
        description = f"{description.rstrip()}\n{FILE_HELP}"
    return tyro.cli(
        config_class,
        prog=prog,
        description=description,
        args=rest,
        default=config,
        use_underscores=True,
    )
