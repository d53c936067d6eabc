"""What a run's manifest says of the attack behind a condition, and which of its checks failed.

A record belongs to the rows of one condition by all that tells conditions apart, so a later command that writes these
rows again replaces what is said of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffad.conditions import KEY_COLUMNS, Condition

_TIES = tuple(name for name in KEY_COLUMNS if name not in ("condition", "alpha_kind"))


def failed_checks(manifest: Mapping[str, Any], condition: Condition) -> list[str] | None:
    """Return the mandatory checks that an attack's condition failed; None if none were made, or it is no attack."""
    record = find_record(manifest, condition)
    return None if record is None else record["failed_checks"]


def find_record(manifest: Mapping[str, Any], condition: Condition) -> dict[str, Any] | None:
    """Return the record of an attack's rows, of several commands the last one's; None if there is none."""
    if condition.condition != "attack":
        return None
    ties = ties_of(condition)
    records = [record for entry in manifest["commands"] for record in entry.get("attacks", ())]
    matching = [record for record in records if all(record[name] == value for name, value in ties.items())]
    return matching[-1] if matching else None


def ties_of(condition: Condition) -> dict[str, Any]:
    """Return what tells an attack's rows from all others, by name of KEY_COLUMNS."""
    return {
        name: getattr(condition, name) if hasattr(condition, name) else getattr(condition.subject, name)
        for name in _TIES
    }
