"""The order of choices on validation data: by what they certify, unless none certifies anything."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar, runtime_checkable

HALF = 0.5  # what a constant score has, and certifies at every radius, since ties count one half


@runtime_checkable
class Ranked(Protocol):
    """AUROC on validation data, clean and as it would be certified at each radius of the choice."""

    @property
    def clean(self) -> float:
        """Of the smoothed score, without an attacker."""

    @property
    def certified(self) -> tuple[float, ...]:
        """At each radius."""

    @property
    def merit(self) -> tuple[float, float]:
        """Mean of the certified ones, then clean."""


One = TypeVar("One", bound=Ranked)


def ranked(choices: Iterable[One]) -> list[One]:
    """Return the choices, best first: by their merit, or, where none certifies anything, by their clean AUROC.

    Certified AUROCs at or below .5 are all worth as little as a constant score: the largest of them belongs to the
    noise that loses an image's score least, which may well be the one that tells least apart.
    """
    found = list(choices)
    if certifies_something(found):
        return sorted(found, key=lambda one: one.merit, reverse=True)
    return sorted(found, key=lambda one: one.clean, reverse=True)


def certifies_something(choices: Sequence[Ranked]) -> bool:
    """Whether any choice certifies an AUROC above .5 at any radius."""
    return any(max(one.certified, default=0.0) > HALF for one in choices)
