"""How a detector is smoothed and certified: the plan, and the smoothed detector that follows from it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from certify.bounds import alpha_per_image
from certify.checks import InputError, check_choice, check_device, check_positive, check_probability
from certify.confidence import CONFIDENCE_METHODS, ConfidenceMethod
from certify.sampler import NOISE_CHUNK
from certify.shards import Shard
from certify.smoothing import SmoothedDetector
from diffad.data import DataSplit
from diffad.detector import Detector
from diffad.registry import load_detector
from diffad.subject import Subject, smoothed_name, sum_of_levels

Threshold: TypeAlias = Literal["quantile", "conformal"]
THRESHOLDS: tuple[Threshold, ...] = ("quantile", "conformal")


@dataclass(frozen=True)
class Plan:
    """How a detector is smoothed and certified.

    `alpha` is the total of one table cell (one radius, one side, all images) or, when `joint`, of all its cells;
    `confidence` says how the images of a cell share it (`certify.confidence`); under `failures` and `population`
    each bound takes alpha as well. `alpha_per_image` is the convention of the literature, reported beside it
    from the same draws. `sigma` and `radii` are L2 in [0, 1] pixel units. `sigmas`, ascending, are the levels of a
    sum of percentiles (`diffad.levels`), the last of them `sigma`; empty for one level. With `adaptive` n is the
    most that an image may draw, and drawing ends where at most a share `tolerance` of a cell's pairs is undecided.
    `threshold`, `threshold_radius` and `quantile` say how held-out normals set the threshold (`diffad.thresholds`).
    """

    smoothing: str
    sigma: float | None
    radii: tuple[float, ...]
    sigmas: tuple[float, ...] = ()
    n: int = 1000
    alpha: float = 0.001
    alpha_per_image: float = 0.001
    joint: bool = False
    confidence: ConfidenceMethod = "union"
    percentile: float = 0.5
    quantile: float = 0.9
    threshold: Threshold = "quantile"
    threshold_radius: float | None = None
    calibration: int = 50
    seed: int = 0
    batch_size: int = 250
    images_per_batch: int = 1
    grid: bool = False
    adaptive: bool = False
    tolerance: float = 0.001
    compile: bool = False
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Refuse values out of range before anything is drawn."""
        if self.sigma is not None:
            check_positive(self.sigma, "sigma")
        if self.sigmas:
            self._check_levels()
        for name in ("alpha", "alpha_per_image"):
            if not 0.0 < getattr(self, name) < 0.5:
                raise InputError(f"{name}: got {getattr(self, name)}, need a value between 0 and 0.5")
        check_choice(self.confidence, CONFIDENCE_METHODS, "confidence")
        if self.adaptive and self.confidence == "population":
            raise InputError(
                "confidence: 'population' needs images that are drawn independently of each other, which adaptive "
                "sampling does not do; use union or failures"
            )
        if not 0.0 <= self.tolerance < 1.0:
            raise InputError(f"tolerance: got {self.tolerance}, need a share of the pairs in [0, 1)")
        check_probability(self.percentile, "percentile")
        check_probability(self.quantile, "quantile")
        check_choice(self.threshold, THRESHOLDS, "threshold")
        if (self.threshold == "conformal") != (self.threshold_radius is not None):
            raise InputError(
                "threshold: 'conformal' goes with --threshold_radius, the L2 size of the attacks under which its "
                "false alarms are bounded, for example 0.1; the others go without"
            )
        for name, least in (("n", 1), ("calibration", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name}: got {getattr(self, name)}, need at least {least}")
        if self.images_per_batch < 1:
            raise InputError(f"images_per_batch: got {self.images_per_batch}, need at least 1")
        least = NOISE_CHUNK * self.images_per_batch
        if self.batch_size < 1 or self.batch_size % least:
            raise InputError(
                f"batch_size: got {self.batch_size}, need a multiple of {least} "
                f"({NOISE_CHUNK} draws of {self.images_per_batch} image(s))"
            )
        check_device(self.device)

    def _check_levels(self) -> None:
        for sigma in self.sigmas:
            check_positive(sigma, "sigma")
        if sorted(set(self.sigmas)) != list(self.sigmas) or self.sigmas[-1] != self.sigma:
            raise InputError(f"sigma: got {self.noise}, need different levels, the smallest first")
        if self.adaptive:
            raise InputError(
                "adaptive: draws at one noise level only; give one --sigma, or leave --adaptive out"
            )
        if self.smoothing == "none":
            raise InputError("sigma: the way 'none' adds no noise to sum over; name another by --smoothing")

    @property
    def noise(self) -> str:
        """Sigma as people write it, `0.5 + 1 + 2` for several levels; empty without noise."""
        if self.sigma is None or self.smoothing == "none":
            return ""
        return " + ".join(f"{sigma:g}" for sigma in self.sigmas or (self.sigma,))

    @property
    def cells(self) -> int:
        """Statements that share alpha when `joint`: each radius above 0 has three sides.

        Under `union` one event covers every metric of a cell; otherwise the AUROC and the rates are two.
        """
        above = sum(radius > 0 for radius in self.radii)
        return (3 * above + 1) * (1 if self.confidence == "union" else 2) if self.joint else 1

    @property
    def alpha_kind(self) -> str:
        """How rows name `confidence`."""
        return "total" if self.confidence == "union" else self.confidence

    def level(self, images: int) -> float:
        """One-sided level of each image's bound in a cell of `images` images."""
        return alpha_per_image(self.alpha, images if self.confidence == "union" else 1, self.cells)

    def weakest(self, images: int) -> tuple[float, float]:
        """Level of a bound and sigma of the noise that reaches least far: where it is infinite, so is a sum."""
        assert self.sigma is not None
        levels = self.sigmas or (self.sigma,)
        return self.level(images) / len(levels), levels[0]


def default_smoothing(detector: Detector) -> str:
    """Return `none` for a Lipschitz score, `reference` for a Lipschitz comparison, else `input`.

    A detector that purifies for another one is certified by `denoise`.
    """
    if detector.lipschitz is not None:
        return "none"
    if detector.pair_lipschitz is not None:
        return "reference"
    return "denoise" if getattr(detector, "behind", None) is not None else "input"


def lipschitz_term(detector: Detector, smoothing: str) -> float:
    """Return the constant L that enters the certificate of a way: 0 where the score reads x + noise alone."""
    constants = {"none": detector.lipschitz, "reference": detector.pair_lipschitz}
    return float(constants.get(smoothing) or 0.0)


def smooth(
    detector: Detector, plan: Plan, purifier: Any = None, shard: Shard | None = None
) -> SmoothedDetector:
    """Return the smoothed detector of a plan, on its device, with the object that denoises for it, if any.

    `shard` is the share of this process where several draw together.
    """
    if purifier is not None:
        if plan.smoothing not in ("denoise", "reference"):
            raise InputError(
                f"--purifier: the way {plan.smoothing!r} does not denoise; use --smoothing denoise"
            )
        if purifier.image_shape != detector.image_shape:
            raise InputError(
                f"--purifier: denoises images {purifier.image_shape}, the detector takes {detector.image_shape}"
            )
        purifier = purifier.to(plan.device)
    if plan.compile:
        (detector if purifier is None else purifier).compile_network()
    return SmoothedDetector(
        detector.to(plan.device),
        None if plan.smoothing == "none" else plan.sigma,
        plan.smoothing,  # type: ignore[arg-type]  # checked there
        n=plan.n,
        alpha=plan.alpha_per_image,
        percentile=plan.percentile,
        seed=plan.seed,
        batch_size=plan.batch_size,
        images_per_batch=plan.images_per_batch,
        grid=plan.grid,
        shard=shard,
        device=plan.device,
        purifier=purifier,
    )


def at_level(detector: Detector, smoothing: str, sigma: float | None) -> Detector:
    """Return a diffusion detector whose statistics of normals follow the noise of `reference`; others as they are."""
    change = getattr(detector, "with_options", None)
    if change is None or smoothing != "reference":
        return detector
    changed: Detector = change(sigma=sigma)
    return changed


def subject_of(detector: Detector, split: DataSplit, plan: Plan) -> Subject:
    """Return what the rows name: data, detector, way, score and sigma."""
    score_name = score_name_of(detector, plan.smoothing)
    if plan.smoothing not in ("none", ""):
        score_name = smoothed_name(score_name, plan.percentile, plan.grid)
    if plan.sigmas:
        score_name = sum_of_levels(score_name, plan.sigmas)
    noise = None if plan.smoothing in ("none", "") else plan.sigma
    return Subject(split.name, split.resolution, detector.row_name, plan.smoothing, score_name, noise)


def score_name_of(detector: Detector, smoothing: str) -> str:
    """Return the score as rows name it, with the noise that the detector was fitted on, if any."""
    # the way `sure` has one score of its own, whatever else the detector offers
    name = "squared_l2" if smoothing == "sure" else str(getattr(detector, "score_name", ""))
    fitted_at = detector.fit_info.get("noise_sigma")
    return name if fitted_at is None else f"{name} fit_sigma={fitted_at:g}".strip()


def load_purifier(folder: str | None) -> Any:
    """Return the diffusion detector in `folder`, whose `reconstruct` denoises for another; None for None."""
    if folder is None:
        return None
    purifier = load_detector(folder)
    if purifier.image_shape is None:
        raise InputError(f"--purifier: {folder} is a name; need the folder of a trained detector")
    if purifier.name not in ("diffusion", "closed_form"):
        raise InputError(f"--purifier: {folder} holds a {purifier.name}, need a diffusion detector")
    return purifier


def baseline_plan(detector: Detector, plan: Plan) -> Plan:
    """Return the plan of a network-free row: `none`, or `reference` at the same sigma."""
    smoothing = default_smoothing(detector)
    if smoothing == "none":
        return replace(plan, smoothing=smoothing, sigma=None, sigmas=(), compile=False)
    return replace(plan, smoothing=smoothing, sigma=plan.sigma or 1.0, compile=False)
