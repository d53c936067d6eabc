"""The options of `certify`, and the plan that follows from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from certify.checks import InputError
from diffad.detector import Detector
from diffad.plan import Plan, Threshold, default_smoothing
from diffad.sources import SmoothedOptions, parse_radii, smoothing_levels

# What every certificate of one folder has in common; radii may be added, each is a statement of its own.
FIXED = (
    *(
        "n",
        "percentile",
        "quantile",
        "threshold",
        "threshold_radius",
        "alpha",
        "alpha_per_image",
        "joint",
        "confidence",
        "adaptive",
        "tolerance",
    ),
    *("grid", "seed"),
)


@dataclass(frozen=True, kw_only=True)
class CertifyConfig(SmoothedOptions):
    """Certify a detector: bounds that no attack of a given L2 size can leave, and the AUROC they prove."""

    smoothing: Literal["input", "denoise", "reference", "sure", "none"] | None = None
    """The way; None: `none` for a Lipschitz score, `reference` for a diffusion detector, else `input`."""
    radii: str = "0,0.05,0.1,0.2,0.25,0.5"
    """L2 radii, comma separated, fractions allowed (8/255)."""
    alpha: float = 0.001
    """Error probability of one cell of the table (one radius, one side), all images together."""
    alpha_per_image: float = 0.001
    """Level of each image's bound in the columns of the literature's convention."""
    joint: bool = False
    """Let --alpha hold for all cells of one smoothed detector together; each row under noise beside it has its own."""
    confidence: Literal["union", "failures", "population"] = "union"
    """What --alpha covers, chosen before looking: no bound of a cell wrong; or the number of wrong bounds bounded; or
    further images like these (docs/certificates.md)."""
    quantile: float = 0.9
    """The threshold is this quantile of the smoothed scores of held-out normals."""
    threshold: Threshold = "quantile"
    """How held-out normals set it: `quantile` bounds false alarms at 1 - quantile without an attacker; `conformal`
    bounds them under attacks up to --threshold_radius too, by the certified upper bounds."""
    threshold_radius: str | None = None
    """L2 radius of --threshold conformal; fractions allowed."""
    baselines: bool = True
    """Add the network-free rows: pixel_mean, pca, pixel_nn, patch_nn, closed_form."""
    closed_form: bool = True
    """Have the closed-form denoiser among them, which compares n draws an image with every training image."""
    adaptive: bool = False
    """Draw for each image only what the AUROC at --radii needs, up to --n; the level holds whenever drawing ends."""
    tolerance: float = 0.001
    """With --adaptive: share of a cell's pairs that may stay undecided."""
    one_draw: int | None = None
    """Certify the randomised detector instead, which scores each image by one fresh draw: its expected AUROC, TPR and
    FPR, from so many draws an image (50 cost no more than 1)."""
    grid: bool = False
    """Integer noise for 8-bit images: sound in floating point too against attackers who submit such images."""
    images_per_batch: int = 1
    """Images whose draws share a forward pass: more fill a large --batch_size at a small --n."""
    examples: bool = True
    """Keep a few images with anomaly maps for the report."""
    dry_run: bool = False
    """Print forward passes, expected time and what n can prove at each radius; draw and write nothing."""


def plan_of(config: CertifyConfig) -> Plan:
    """Return the plan as the options give it; `smoothing` is empty and `sigma` None where they leave it open."""
    radius = None if config.threshold_radius is None else one_radius(config.threshold_radius)
    sigma, sigmas = smoothing_levels(config.sigma)
    return Plan(
        smoothing=config.smoothing or "",
        sigma=sigma,
        sigmas=sigmas,
        radii=parse_radii(config.radii),
        n=config.n,
        alpha=config.alpha,
        alpha_per_image=config.alpha_per_image,
        joint=config.joint,
        confidence=config.confidence,
        percentile=config.percentile,
        quantile=config.quantile,
        threshold=config.threshold,
        threshold_radius=radius,
        seed=config.seed,
        batch_size=config.batch_size,
        images_per_batch=config.images_per_batch,
        grid=config.grid,
        adaptive=config.adaptive,
        tolerance=config.tolerance,
        compile=config.compile,
        device=config.device,
    )


def one_radius(text: str) -> float:
    """Read one L2 radius, such as 0.1 or 8/255."""
    radii = parse_radii(text, "--threshold_radius")
    if len(radii) != 1:
        raise InputError(f"--threshold_radius: got {text!r}, need one radius")
    return radii[0]


def complete(plan: Plan, detector: Detector) -> Plan:
    """Return the plan with the way and the noise that the detector suggests where none was named."""
    smoothing = plan.smoothing or default_smoothing(detector)
    sigma = plan.sigma if plan.sigma is not None else getattr(detector, "sigma", None)
    if smoothing != "none" and sigma is None:
        raise InputError(f"--sigma: the way {smoothing!r} needs one, for example --sigma 0.25")
    return replace(plan, smoothing=smoothing, sigma=sigma)


def refuse_changes(
    folder: Path, before: Mapping[str, Any], now: Mapping[str, Any], names: Iterable[str]
) -> None:
    """Raise InputError if one of the options named was recorded in `before` with another value than it has `now`."""
    changed = [name for name in names if name in before and before[name] != now[name]]
    if changed:
        words = "; ".join(f"{name} was {before[name]!r} and is now {now[name]!r}" for name in changed)
        raise InputError(
            f"{folder}: holds a certificate under other options ({words}); use another --output_dir, and decide "
            "n, levels and percentile before you look"
        )
