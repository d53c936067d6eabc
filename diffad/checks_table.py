"""The sanity checks of the attacks of a run, for its report: what held, what did not, what was not looked at."""

from __future__ import annotations

from typing import Any

from diffad import page
from diffad.conditions import Condition
from diffad.recorded_checks import find_record
from diffad.runs import Run
from diffad.tables import MISSING, radius_text

NORM = {"l2": "L2", "linf": "Linf"}


def checks_html(run: Run) -> str:
    """One line a condition that was attacked, and all outcomes on demand; nothing where nothing was attacked."""
    attacks = [condition for condition in run.conditions if condition.condition == "attack"]
    if not attacks:
        return ""
    lines = [["attack", "checks passed", "failed", "did not apply"]]
    folded = []
    for attack in attacks:
        checks = checks_of(run, attack)
        lines.append([_threat(attack), *counts(checks)])
        if checks:
            head = ["check", "", "measured", ""]
            folded.append(page.table([head, *map(outcome_line, checks)], caption=_threat(attack)))
    note = (
        "Each check looks for one way in which an attack fails without anybody noticing: masked gradients, too few "
        "steps, hidden randomness, images of a batch that see each other. Where one marked * fails, tables show "
        '"not converged" instead of a number. A check that passes proves nothing about attacks not tried.'
    )
    return page.table(lines) + page.paragraph(note, "note") + page.folded("All outcomes", "".join(folded))


def checks_of(run: Run, attack: Condition) -> list[dict[str, Any]]:
    """Return the recorded outcomes of an attack's checks; empty if none were made."""
    record = find_record(run.manifest, attack)
    return [] if record is None else list(record["checks"])


def counts(checks: list[dict[str, Any]]) -> list[str]:
    """Number passed, names failed (mandatory ones with a star), and number not applicable."""
    if not checks:
        return ["not checked", MISSING, MISSING]
    failed = [_name(check) for check in checks if check["passed"] is False]
    passed = sum(check["passed"] is True for check in checks)
    skipped = sum(check["passed"] is None for check in checks)
    return [f"{passed} of {len(checks) - skipped}", ", ".join(failed) or MISSING, str(skipped)]


def outcome_line(check: dict[str, Any]) -> list[str]:
    """Name, outcome, value and what was measured."""
    state = {True: "passed", False: "failed", None: "not run"}[check["passed"]]
    value = MISSING if check["value"] is None else f"{check['value']:.3g}"
    return [_name(check), state, value, str(check["detail"])]


def _name(check: dict[str, Any]) -> str:
    return f"{check['name']}{'*' if check['mandatory'] else ''}"


def _threat(attack: Condition) -> str:
    by = f" by {attack.method}" if attack.method else ""
    return f"{attack.subject.label}, {NORM[attack.norm]} {radius_text(attack.radius, attack.norm)}{by}"
