"""Robustness statements about any anomaly score."""

from certify.bounds import (
    all_infinite,
    alpha_per_image,
    clopper_pearson_lower,
    clopper_pearson_upper,
    linf_reading,
    max_radius,
    min_samples,
    order_ranks,
)
from certify.certificate import (
    certified_radius,
    certify_scores,
    invalid_draws,
    lipschitz_bounds,
    lipschitz_radius,
    percentile_scores,
    predict_scores,
)
from certify.checks import InputError
from certify.metrics import auroc, average_precision, fpr_at_tpr, rate_interval, tpr_fpr_at_threshold
from certify.sampler import NOISE_CHUNK, PURPOSES, gaussian_noise, sample_scores
from certify.smoothing import SmoothedDetector
from certify.store import ScoreStore
from certify.text import ceil_text, floor_text
from certify.types import SIDES, ScoreBounds, Side
from certify.ways import WAYS, Way, make_base

__all__ = [
    "NOISE_CHUNK",
    "PURPOSES",
    "SIDES",
    "WAYS",
    "InputError",
    "ScoreBounds",
    "ScoreStore",
    "Side",
    "SmoothedDetector",
    "Way",
    "all_infinite",
    "alpha_per_image",
    "auroc",
    "average_precision",
    "ceil_text",
    "certified_radius",
    "certify_scores",
    "clopper_pearson_lower",
    "clopper_pearson_upper",
    "floor_text",
    "fpr_at_tpr",
    "gaussian_noise",
    "invalid_draws",
    "linf_reading",
    "lipschitz_bounds",
    "lipschitz_radius",
    "make_base",
    "max_radius",
    "min_samples",
    "order_ranks",
    "percentile_scores",
    "predict_scores",
    "rate_interval",
    "sample_scores",
    "tpr_fpr_at_threshold",
]
