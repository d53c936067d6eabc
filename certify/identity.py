"""Whose draws a store keeps: its configuration must name the detector, and the way, that it is used with.

Noise is keyed, so another detector asks for the same image and chunk and would be given the scores that are there.
"""

from __future__ import annotations

from typing import Any

from certify.checks import InputError
from certify.store import ScoreStore


def check_named(store: ScoreStore) -> None:
    """Refuse a store whose configuration names no detector.

    A score that is a plain function has no identity that could be compared: the name is the caller's word, and another
    score needs another name.
    """
    name = store.config.get("detector")
    if not isinstance(name, str) or not name:
        raise InputError(
            f"store {store.folder}: its configuration names no detector (detector is {name!r}); add 'detector': its "
            "fingerprint(), or a name of yours that no other score has, to sampling_config()"
        )


def check_identity(store: ScoreStore, smoothing: str, detector: Any, purifier: Any = None) -> None:
    """Refuse a store that is not of this detector, smoothed in this way, with this purifier.

    Detector and purifier are compared by `fingerprint()` where they have one, otherwise the store must name them.
    """
    check_named(store)
    expected = {"smoothing": smoothing, "detector": fingerprint_of(detector)}
    if purifier is not None:
        expected["purifier"] = fingerprint_of(purifier)
        if not store.config.get("purifier"):
            raise InputError(
                f"store {store.folder}: its configuration names no purifier; add 'purifier': its fingerprint(), or a "
                "name of yours that no other one has"
            )
    elif store.config.get("purifier"):
        expected["purifier"] = ""
    for name, value in expected.items():
        stored = store.config.get(name, "absent")
        if value is not None and stored != value:
            raise InputError(
                f"store {store.folder}: {name} is {stored!r} in its configuration and {value!r} for these draws; use "
                "another folder"
            )


def fingerprint_of(thing: Any) -> str | None:
    """Return what `thing.fingerprint()` returns, None where there is no such method."""
    method = getattr(thing, "fingerprint", None)
    return str(method()) if callable(method) else None
