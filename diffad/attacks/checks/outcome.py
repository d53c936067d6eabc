"""What a check says: it held, it did not, or it has nothing to say here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class CheckOutcome:
    """The outcome of one check: `value` is what was measured, in the words of `detail`.

    `passed` None means that the check does not apply here, for the reason in `detail`; `value` is then None. Where
    one that is `mandatory` failed, tables show `not converged` and its name instead of a number.
    """

    name: str
    passed: bool | None
    value: float | None
    detail: str
    mandatory: bool = False

    @property
    def failed(self) -> bool:
        """Whether the check ran and did not hold."""
        return self.passed is False

    @property
    def sentence(self) -> str:
        """One line for people."""
        state = {True: "passed", False: "FAILED", None: "not run"}[self.passed]
        measured = "" if self.value is None else f" {self.value:.3g}"
        return f"{self.name}: {state},{measured} {self.detail}"

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values, as manifests keep them."""
        return asdict(self)


def not_applicable(name: str, reason: str) -> CheckOutcome:
    """Return the outcome of a check that has nothing to say here."""
    return CheckOutcome(name, None, None, reason)


def failed_mandatory(outcomes: Iterable[CheckOutcome]) -> list[str]:
    """Return the names of the mandatory checks that failed: those that withhold a number from tables."""
    return [outcome.name for outcome in outcomes if outcome.mandatory and outcome.failed]
