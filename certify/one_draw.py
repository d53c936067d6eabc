"""The certificate of a randomised detector that scores each image once: K draws an image certify a data set.

Here nobody takes a percentile. The detector scores an image by one fresh draw, A(x + noise) or, for a score
that reads the clean image as well, S(x, x + noise) with Lipschitz constant L in it; the attacker fixes the
images without knowing that draw. Certified are *expected* AUROC, TPR and FPR over the detector's noise on the
images given. This is another detector than the smoothed one and is reported apart.

Why it holds. Let pair (i, j) have the credit c = 1[A_i > A_j] + 1[A_i = A_j] / 2 of the AUROC, and theta_ij its
expectation without an attack.

1. *One pair.* c takes values in [0, 1] and is a function of the pair of noisy images, a Gaussian vector with
   the same sigma that an attack shifts by at most d: sqrt(2) r if both images are attacked, r if one is. For
   such functions the expectation falls to g(theta_ij), g(t) = Phi(Phi^-1(t) - d / sigma), at the least: for
   an event this is Neyman and Pearson, and c is the mean of the events A_i > A_j and A_i >= A_j, with g convex
   (step 2). So ties may keep their half; counting strict wins only would be sound as well, and lower.
2. *All pairs.* g'(t) = exp(z d / sigma - d^2 / (2 sigma^2)) at z = Phi^-1(t) increases, so g is convex, and by
   Jensen the mean of the g(theta_ij) is at least g(mean of the theta_ij).
3. *K draws.* The estimate of the mean credit from all pairs of draws changes by at most 1 / (m K) or 1 / (n K)
   with one of m K or n K independent draws, so by McDiarmid's inequality the mean is at least
   estimate - sqrt(ln(1 / alpha) (1 / m + 1 / n) / (2 K)) with probability 1 - alpha.

Split scores move by at most L r with each attacked reference, so there a win must have the margin 2 L r (L r
if one image is attacked), after which the references are frozen and 1 to 3 hold. Rates at a threshold have
one image in place of two, and for the FPR every inequality is mirrored: Phi(Phi^-1(t) + r / sigma) is concave.
A NaN draw loses: -inf for an anomaly, +inf for a normal image. (One decision instead of a data set: RCP1,
NeurIPS 2025.)
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri

from certify.bounds import clopper_pearson_lower
from certify.certificate import check_level, check_lipschitz, check_scores
from certify.checks import InputError, check_choice, check_labels, check_positive, check_radii
from certify.types import SIDES, FloatArray, Side
from certify.uncertainty import placement_values

# How many anomalies and normal images of a pair are attacked.
ATTACKED: dict[Side, tuple[int, int]] = {"clean": (0, 0), "in": (0, 1), "out": (1, 0), "both": (1, 1)}
# Values give this away, more than the rounding error of the normal distribution function and its inverse.
ROUNDING = 1e-12


def one_draw_auroc(
    noisy_scores: Any,
    labels: Any,
    sigma: float,
    radii: Any,
    alpha: float,
    side: Side = "both",
    lipschitz: float = 0.0,
) -> FloatArray:
    """Bound the expected AUROC of the one-draw detector under attack from below.

    Args:
        noisy_scores: (images, K) scores under draws of the noise, independent of each other and between images.
        labels: (images,), 0 normal and 1 anomalous, both present.
        sigma: standard deviation of the noise, in pixel units of [0, 1].
        radii: L2 radii in the same units.
        alpha: one-sided level, in (0, 0.5). With `lipschitz` 0 one event of probability 1 - alpha carries all
            radii and sides; otherwise the margin depends on them, and the level is that of each value.
        side: who is attacked.
        lipschitz: L of a score that reads the clean image as well; 0 only for a function of x + noise.

    Returns:
        Lower bounds (radii,) in [0, 1]; ties count one half.
    """
    anomalies, normals, radii = _check(noisy_scores, labels, sigma, radii, alpha, side, lipschitz)
    attacked = sum(ATTACKED[side])
    m, n, draws = len(anomalies), len(normals), anomalies.shape[1]
    slack = math.sqrt(-math.log(alpha) * (1.0 / m + 1.0 / n) / (2.0 * draws))
    credit = []
    for radius in radii if lipschitz > 0.0 else radii[:1]:
        ahead = _raised(normals, attacked * lipschitz * float(radius))
        credit.append(placement_values(anomalies.ravel(), ahead.ravel())[0].mean() - slack)
    return _shifted(np.array(credit), math.sqrt(attacked) * radii / sigma)


def one_draw_rates(
    noisy_scores: Any,
    labels: Any,
    threshold: float,
    sigma: float,
    radii: Any,
    alpha: float,
    side: Side = "both",
    lipschitz: float = 0.0,
) -> tuple[FloatArray, FloatArray]:
    """Bound the expected TPR from below and FPR from above, of one draw an image and `score > threshold`.

    Arguments as in `one_draw_auroc`; the threshold is finite and comes from held-out normal images. Both rates
    hold together with probability at least 1 - alpha, alpha / 2 each. Returns two arrays (radii,) in [0, 1].
    """
    if not math.isfinite(threshold):
        raise InputError(f"threshold: got {threshold}, need a finite value")
    anomalies, normals, radii = _check(noisy_scores, labels, sigma, radii, alpha, side, lipschitz)
    rates = []
    # The FPR is 1 minus the rate of passed normal images, -score >= -threshold, and so its mirror image.
    for scores, attacked in zip((anomalies, -normals), ATTACKED[side], strict=True):
        limit = threshold if scores is anomalies else -threshold
        shares = []
        for radius in radii:
            least = _raised(np.array([limit]), attacked * lipschitz * float(radius))[0]
            right = (scores > least) if scores is anomalies else (scores >= least)
            shares.append(mean_rate_lower(int(right.sum()), scores.size, alpha / 2))
        rates.append(_shifted(np.array(shares), attacked * radii / sigma))
    return rates[0], 1.0 - rates[1]


def mean_rate_lower(successes: int, trials: int, alpha: float) -> float:
    """Return a lower confidence bound of the mean of `trials` success rates, one independent trial of each.

    It is the Clopper-Pearson bound, for `alpha` at most 1/4: of all rates with one mean equal ones spread the
    number of successes most (Hoeffding, Annals of Mathematical Statistics 1956: for integers b <= trials *
    mean <= c, P(b <= successes <= c) is least then), and a binomial count reaches its mean with probability
    above 1/4 if that is at least 1 (Greenberg and Mohri 2014), so that the tail at level alpha starts beyond
    it. A mean below 1 leaves the case of a single success, whose bound is alpha / trials by Markov.
    """
    if alpha > 0.25:
        raise InputError(f"alpha: got {alpha}, need at most 0.25")
    return alpha / trials if successes == 1 else clopper_pearson_lower(successes, trials, alpha)


def _shifted(value: FloatArray, shift: FloatArray) -> FloatArray:
    """Return Phi(Phi^-1(value) - shift), rounded down, within [0, 1]."""
    moved = ndtr(ndtri(np.clip(value, 0.0, 1.0)) - shift)
    return np.asarray(np.clip(moved - ROUNDING, 0.0, 1.0), dtype=np.float64)


def _raised(scores: FloatArray, margin: float) -> FloatArray:
    """Add a margin, rounded up; scores stay as they are without one."""
    if margin == 0.0:
        return scores
    return np.asarray(np.nextafter(scores + np.nextafter(margin, np.inf), np.inf), dtype=np.float64)


def _check(
    noisy_scores: Any, labels: Any, sigma: float, radii: Any, alpha: float, side: Side, lipschitz: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the draws of anomalies (m, K), of normal images (n, K), NaN replaced, and the radii."""
    scores = check_scores(noisy_scores)
    anomalous = check_labels(labels, len(scores)) == 1
    check_positive(sigma, "sigma")
    check_level(alpha)
    check_choice(side, SIDES, "side")
    check_lipschitz(lipschitz)
    invalid = np.isnan(scores)
    return (
        np.where(invalid, -np.inf, scores)[anomalous],
        np.where(invalid, np.inf, scores)[~anomalous],
        check_radii(np.atleast_1d(np.asarray(radii, dtype=np.float64))),
    )
