from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from certify.checks import InputError
from diffad.config import parse_config, read_config


@dataclass(frozen=True)
class Options:
    """Some options."""

    learning_rate: float = 1.0
    max_train_steps: int | None = 5
    use_ema: bool = True
    mixed_precision: Literal["no", "bf16"] = "bf16"
    normal_class: str | None = None
    block_out_channels: tuple[int, ...] = (32, 64)


def written(folder: Path, text: str) -> Path:
    path = folder / "options.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def parse(*words: str, **presets: dict[str, object]) -> Options:
    return parse_config(Options, words, prog="tool", description="A tool.", presets=presets)


def test_values_take_the_type_of_their_field_whatever_yaml_thinks(tmp_path: Path) -> None:
    text = (
        "learning_rate: 1e-4\nmixed_precision: no\nnormal_class: 8\nuse_ema: false\nmax_train_steps: null\n"
    )
    path = written(tmp_path, text + "block_out_channels: [8, 16]\n")
    assert read_config(Options, path) == Options(1e-4, None, False, "no", "8", (8, 16))


def test_none_is_nothing_but_where_it_is_a_choice(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Choices:
        way: Literal["input", "none"] | None = "input"
        name: str | None = "input"

    assert read_config(Choices, written(tmp_path, "way: none\nname: none")) == Choices("none", None)
    assert read_config(Choices, written(tmp_path, "way: null")) == Choices(None)


def test_file_over_defaults_preset_over_file_flags_over_all(tmp_path: Path) -> None:
    path = str(written(tmp_path, "learning_rate: 0.5\nmax_train_steps: 7\nuse_ema: false"))
    smoke = {"learning_rate": 0.25, "max_train_steps": 2}
    assert parse("--config", path) == Options(0.5, 7, False)
    assert parse("--config", path, "--smoke", smoke=smoke) == Options(0.25, 2, False)
    words = ("--config", path, "--smoke", "--learning_rate", "1e-3", "--use-ema", "--block-out_channels", "4")
    assert parse(*words, smoke=smoke) == Options(1e-3, 2, True, block_out_channels=(4,))


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    assert read_config(Options, written(tmp_path, "# nothing yet\n")) == Options()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lerning_rate: 1", "unknown key 'lerning_rate'; did you mean 'learning_rate'"),
        ("colour: red", "unknown key 'colour'; allowed are learning_rate, max_train_steps, use_ema"),
        ("learning_rate: fast", "learning_rate: got 'fast', need a number"),
        ("max_train_steps: 1.5", "max_train_steps: got '1.5', need an integer"),
        ("use_ema: maybe", "use_ema: got 'maybe', allowed are true and false"),
        ("mixed_precision: fp8", "mixed_precision: got 'fp8', allowed are no, bf16"),
        ("block_out_channels: 32", r"block_out_channels: got '32', need a list such as \[32, 64\]"),
        ("normal_class: [1]", "normal_class: got a list, need one value"),
        ("- 1", "need lines such as 'seed: 0', got a list"),
        ("a: [", "not valid YAML"),
    ],
)
def test_a_wrong_file_is_told_apart(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_config(Options, written(tmp_path, text))
    assert "\n" not in str(caught.value)
    assert "options.yaml" in str(caught.value)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(InputError, match=r"--config: absent\.yaml is not a file"):
        parse("--config", "absent.yaml")


def test_help_names_the_file_that_is_read_before_the_flags(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("--help")
    assert capsys.readouterr().out.count("--config FILE") == 1
    with pytest.raises(SystemExit):
        parse_config(Options, ["--help"], prog="tool", description="A tool. --config FILE reads YAML.")
    assert capsys.readouterr().out.count("--config FILE") == 1


def test_an_unknown_flag_is_a_usage_error_that_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse("--lerning_rate", "1")
    assert caught.value.code == 2
    assert "--learning_rate" in capsys.readouterr().err
