"""Attacks on anomaly scores: a threat, an objective and an optimiser; normals go up, anomalies down."""

from diffad.attacks.attack import as_target, attack, attack_curve, pgd
from diffad.attacks.methods import ATTACKS, ENSEMBLES, PRESETS
from diffad.attacks.minimal import MinimalDistance, minimal_distance
from diffad.attacks.objective import Objective, ScoreObjective
from diffad.attacks.pgd import SCHEDULES
from diffad.attacks.random import RandomTarget
from diffad.attacks.reconstruction import ReconstructionScore, purified
from diffad.attacks.result import AttackResult
from diffad.attacks.search import Material, Search
from diffad.attacks.smoothed import SmoothedTarget, attack_smoothed, soft_percentile
from diffad.attacks.surrogates import surrogate_names
from diffad.attacks.target import ScoreTarget, Target
from diffad.attacks.threat import NORMS, AttackError, Norm, ThreatModel, parse_eps

__all__ = [
    "ATTACKS",
    "ENSEMBLES",
    "NORMS",
    "PRESETS",
    "SCHEDULES",
    "AttackError",
    "AttackResult",
    "Material",
    "MinimalDistance",
    "Norm",
    "Objective",
    "RandomTarget",
    "ReconstructionScore",
    "ScoreObjective",
    "ScoreTarget",
    "Search",
    "SmoothedTarget",
    "Target",
    "ThreatModel",
    "as_target",
    "attack",
    "attack_curve",
    "attack_smoothed",
    "minimal_distance",
    "parse_eps",
    "pgd",
    "purified",
    "soft_percentile",
    "surrogate_names",
]
