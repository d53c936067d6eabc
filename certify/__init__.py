"""Robustness statements about any anomaly score."""

from certify.adaptive import Decisions, DrawSource, certify_decisions
from certify.adaptive_auroc import AdaptiveBounds, adaptive_bounds
from certify.bands import band_bounds, band_width, mean_bounds
from certify.bounds import (
    all_infinite,
    alpha_per_image,
    clopper_pearson_lower,
    clopper_pearson_upper,
    hoeffding_lower,
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
from certify.confidence import (
    CONFIDENCE_METHODS,
    Confidence,
    ConfidenceMethod,
    auroc_confidence,
    failure_count,
    tpr_fpr_confidence,
)
from certify.conformal import conformal_rank, robust_conformal_threshold
from certify.metrics import auroc, average_precision, fpr_at_tpr, rate_interval, tpr_fpr_at_threshold
from certify.mixture import (
    confidence_sequence_lower,
    confidence_sequence_radius,
    mixture_boundary,
    mixture_log_wealth,
)
from certify.noise import fresh_seed
from certify.one_draw import one_draw_auroc, one_draw_rates
from certify.pool import DrawPool
from certify.sampler import NOISE_CHUNK, PURPOSES, gaussian_noise, sample_scores
from certify.sequential import (
    GroupSequentialPlan,
    default_looks,
    fewest_draws,
    group_sequential_plan,
    run_plan,
)
from certify.sequential_ranks import sequential_ranks
from certify.shards import Shard, current_shard
from certify.smoothed_sum import SmoothedSum, level_seed
from certify.smoothing import SmoothedDetector
from certify.store import ScoreStore
from certify.sums import NoiseLevel, certify_sum, sum_bounds, sum_radius, sum_scores
from certify.sure import sure_score
from certify.text import ceil_text, floor_text
from certify.types import SIDES, ScoreBounds, Side
from certify.uncertainty import (
    Comparison,
    Estimate,
    bootstrap_interval,
    bootstrap_test,
    delong_interval,
    delong_test,
    placement_values,
)
from certify.ways import WAYS, Way, make_base

__all__ = [
    "CONFIDENCE_METHODS",
    "NOISE_CHUNK",
    "PURPOSES",
    "SIDES",
    "WAYS",
    "AdaptiveBounds",
    "Comparison",
    "Confidence",
    "ConfidenceMethod",
    "Decisions",
    "DrawPool",
    "DrawSource",
    "Estimate",
    "GroupSequentialPlan",
    "InputError",
    "NoiseLevel",
    "ScoreBounds",
    "ScoreStore",
    "Shard",
    "Side",
    "SmoothedDetector",
    "SmoothedSum",
    "Way",
    "adaptive_bounds",
    "all_infinite",
    "alpha_per_image",
    "auroc",
    "auroc_confidence",
    "average_precision",
    "band_bounds",
    "band_width",
    "bootstrap_interval",
    "bootstrap_test",
    "ceil_text",
    "certified_radius",
    "certify_decisions",
    "certify_scores",
    "certify_sum",
    "clopper_pearson_lower",
    "clopper_pearson_upper",
    "confidence_sequence_lower",
    "confidence_sequence_radius",
    "conformal_rank",
    "current_shard",
    "default_looks",
    "delong_interval",
    "delong_test",
    "failure_count",
    "fewest_draws",
    "floor_text",
    "fpr_at_tpr",
    "fresh_seed",
    "gaussian_noise",
    "group_sequential_plan",
    "hoeffding_lower",
    "invalid_draws",
    "level_seed",
    "linf_reading",
    "lipschitz_bounds",
    "lipschitz_radius",
    "make_base",
    "max_radius",
    "mean_bounds",
    "min_samples",
    "mixture_boundary",
    "mixture_log_wealth",
    "one_draw_auroc",
    "one_draw_rates",
    "order_ranks",
    "percentile_scores",
    "placement_values",
    "predict_scores",
    "rate_interval",
    "robust_conformal_threshold",
    "run_plan",
    "sample_scores",
    "sequential_ranks",
    "sum_bounds",
    "sum_radius",
    "sum_scores",
    "sure_score",
    "tpr_fpr_at_threshold",
    "tpr_fpr_confidence",
]
