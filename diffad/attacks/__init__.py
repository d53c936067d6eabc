"""Attacks on anomaly scores: a threat, an objective and an optimiser; normals go up, anomalies down."""

from diffad.attacks.pgd import SCHEDULES, attack_curve, pgd
from diffad.attacks.result import AttackResult
from diffad.attacks.smoothed import attack_smoothed, soft_percentile
from diffad.attacks.threat import NORMS, AttackError, Norm, ThreatModel, parse_eps

__all__ = [
    "NORMS",
    "SCHEDULES",
    "AttackError",
    "AttackResult",
    "Norm",
    "ThreatModel",
    "attack_curve",
    "attack_smoothed",
    "parse_eps",
    "pgd",
    "soft_percentile",
]
