"""Sanity checks of an attack: signs that a high attacked score is the attack's failure, not robustness.

    outcomes = run_checks(detector, images, labels, attack(detector, images, labels, norm="linf", eps="8/255"))
    failed_mandatory(outcomes)      # [] or, for example, ["black_box"]: tables then read `not converged (black_box)`

After Athalye et al. (ICML 2018), Carlini et al. (2019) and Tramer et al. (NeurIPS 2020).
"""

from diffad.attacks.checks.case import Budget, Case
from diffad.attacks.checks.outcome import CheckOutcome, failed_mandatory
from diffad.attacks.checks.run import CHECKS, LEVELS, run_checks

__all__ = ["CHECKS", "LEVELS", "Budget", "Case", "CheckOutcome", "failed_mandatory", "run_checks"]
