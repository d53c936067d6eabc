"""The SURE score: the mean squared error against the clean image, estimated from the noisy one alone.

For y = x + sigma e, e ~ N(0, I) in d pixels, and a reconstruction R(y), Stein's identity gives

    E |R(y) - y|^2 - d sigma^2 + 2 sigma^2 E div R(y)  =  E |R(y) - x|^2

(Stein, Ann. Statist. 1981). The left side never reads x, so its per-draw version A(y) is a function of x + noise:
plain Gaussian smoothing certifies its percentile, with no Lipschitz term, however rough the estimate of the
divergence is. The price is the spread of |y - x|^2: about sigma^2 sqrt(2 d) a draw.

The divergence is b . J_R(y) b with one fixed probe b of signs (Hutchinson, 1990; Ramani et al., IEEE TIP 2008, for
black boxes). The probe depends on the shape of the image only: a probe drawn anew at each call would be noise that
the sampler does not key, and one drawn from the image would be harmless but hidden. What a fixed probe costs is
exactness: sum_ij b_i b_j J_ij is the trace where J is diagonal, else only in the mean over probes. That is a matter
of accuracy, never of soundness.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from certify.checks import check_positive

Reconstruct: TypeAlias = Callable[[Tensor, float], Tensor]

# Step of the finite difference in deviations of the noise. For a digits network in bfloat16, sigma from 0.1 to 2, the
# divergence is then off by .5 in the mean and spreads by .6 (d = 256), little beside the sqrt(d / 2) = 11 that the
# noise itself contributes in the same units; smaller steps are ruined by rounding, larger ones by curvature.
STEP = 0.1
PROBE_SEED = 0


def sure_score(
    reconstruct: Reconstruct, noisy: Float[Tensor, "b c h w"], sigma: float, step: float = STEP
) -> Float[Tensor, " b"]:
    """Return A(y) = |R(y) - y|^2 - d sigma^2 + 2 sigma^2 b . J_R(y) b, higher = more anomalous; may be negative.

    J b is the central difference (R(y + t b) - R(y - t b)) / 2 t, exact for an affine R: three calls of
    `reconstruct`, each with the shape of `noisy`. Nothing but values of R is needed, so a black box and a network
    in bfloat16 will do; where R is differentiable the score is too.

    Args:
        reconstruct: R(y, sigma), which treats each image by itself.
        noisy: y, pixel units of [0, 1], not clipped.
        sigma: standard deviation of the noise in y, in the same units.
        step: t / sigma.
    """
    check_positive(sigma, "sigma")
    size = check_positive(step, "step") * sigma
    signs = probe(noisy.shape[1:]).to(noisy)
    forward, backward = reconstruct(noisy + size * signs, sigma), reconstruct(noisy - size * signs, sigma)
    divergence = ((forward.double() - backward.double()) * signs).flatten(1).sum(1) / (2.0 * size)
    residual = (reconstruct(noisy, sigma).double() - noisy.double()).flatten(1)
    score = residual.square().sum(1) + sigma**2 * (2.0 * divergence - residual.shape[1])
    return score.to(noisy.dtype)


def probe(shape: Sequence[int]) -> Float[Tensor, "c h w"]:
    """Return the fixed signs, -1.0 and 1.0, for images of `shape` (channel, height, width)."""
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(PROBE_SEED)))
    return torch.from_numpy(2.0 * generator.integers(0, 2, size=tuple(shape)) - 1.0)
