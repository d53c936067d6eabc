"""`load_data`: from a name on the command line to four disjoint parts.

>>> from diffad.data import load_data
>>> split = load_data("digits", normal_class=8, limit=10)
>>> split.name, tuple(split.test.images.shape)
('digits:8', (20, 1, 16, 16))
"""

from __future__ import annotations

from typing import Any

from certify.checks import InputError, check_choice
from diffad.data.assemble import assemble
from diffad.data.digits import digits
from diffad.data.protocols import PROTOCOLS, one_class, resolve_class
from diffad.data.split import DataSplit
from diffad.data.texture_split import texture_split


def load_data(
    spec: str,
    *,
    normal_class: str | int | None = None,
    resolution: int | None = None,
    channels: int | None = None,
    seed: int = 0,
    limit: int | None = None,
    protocol: str = "one_class",
) -> DataSplit:
    """Load a data set."""
    check_choice(protocol, PROTOCOLS, "protocol")
    kind, _, rest = spec.partition(":")
    options: dict[str, Any] = {
        "spec": spec,
        "normal_class": normal_class,
        "resolution": resolution,
        "channels": channels,
        "seed": seed,
        "limit": limit,
        "protocol": protocol,
    }
    if kind == "textures":
        return texture_split(
            rest or "grid", resolution=resolution, channels=channels, seed=seed, limit=limit, options=options
        )
    if kind != "digits":
        raise InputError(f"data: got {spec!r}")
    source = digits(resolution=resolution, channels=channels, seed=seed)
    choice = one_class(source, normal_class, limit=limit, seed=seed)
    return assemble(
        f"digits:{resolve_class(source, normal_class)}",
        source,
        choice,
        seed=seed,
        options=options,
        channels=channels,
    )
