"""The options of `diffad fit`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

# The scores of a classifier, and which options of `fit` each takes.
SCORES: dict[str, tuple[str, ...]] = {
    "msp": (),
    "max_logit": (),
    "energy": ("temperature",),
    "mahalanobis": ("ridge",),
    "relative_mahalanobis": ("ridge",),
    "openmax": ("tail_size", "top_classes"),
}
# Options that only these detectors take; others refuse every value but the default.
OWNERS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("generator", "generated", "generator_sigmas"), ("generated_nn",)),
    "backbone": ("zarnd", *SCORES),
    **dict.fromkeys(("k", "normalize", "squared", "layers", "index"), ("zarnd",)),
    **dict.fromkeys(("network", "cobra_score", "embedding"), ("cobra",)),
    **dict.fromkeys(("adversarial_eps", "adversarial_norm"), ("autoencoder",)),
    **{
        option: tuple(score for score, options in SCORES.items() if option in options)
        for option in dict.fromkeys(one for options in SCORES.values() for one in options)
    },
    "n_components": ("pca", "patch_nn"),
    "patch_size": ("patch_nn",),
    "stride": ("patch_nn",),
    "selection": ("patch_nn",),
    "remove_mean": ("patch_nn",),
    "bank_size": ("zarnd", "patch_nn"),
    "nu": ("deep_svdd",),
}


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """Fit a detector on normal images, calibrate and save it; pca and patch_nn choose options on validation data."""

    detector: str = "pixel_nn"
    """pixel_mean, pca, pixel_nn, patch_nn, closed_form, autoencoder, deep_svdd, lipschitz_net, generated_nn (with
    --generator), cobra (with --network); with --backbone: zarnd, msp, max_logit, energy, mahalanobis,
    relative_mahalanobis, openmax; or somebody else's, such as sklearn:IsolationForest."""
    data: str | None = None
    """None: digits, or what the generator, the network or the detector behind a purifier was trained on."""
    normal_class: str | None = None
    """The class taken as normal; under ood several, comma separated."""
    protocol: str = "one_class"
    """one_class, unlabeled_multiclass or ood."""
    outliers: str | None = None
    """Data sets that are anomalous under the last two, comma separated; rest: the other classes of the same set."""
    resolution: int | None = None
    radii: str = "0,0.1,0.25"
    """L2 radii whose certified AUROC on validation data decides between options."""
    generator: str | None = None
    """Folder of the trained diffusion detector that draws the bank of generated_nn, on its own training split."""
    generated: int = 2000
    """Images it draws."""
    generator_sigmas: str = "4,2,1,0.5,0.25,0.12"
    """Noise of its steps, falling, [0, 1] pixel units; within what it was trained on."""
    backbone: str | None = None
    """Folder of the network whose features zarnd compares, or of the classifier whose logits or features the scores
    msp to openmax read (`diffad backbones convert`, `diffad.backbones.train`)."""
    k: int = 2
    """Neighbours of zarnd."""
    normalize: bool = False
    """Features of zarnd at length 1, as in its published code."""
    squared: bool = False
    """Squared distances in zarnd, as in its published code."""
    layers: str = "features"
    """Layers of the backbone whose features zarnd joins, comma separated."""
    bank_size: int | None = None
    """Normals that zarnd keeps, chosen to cover the others (None: all), or patches that patch_nn keeps (60 000)."""
    index: str = "exact"
    """How zarnd searches: exact, or faiss_hnsw, faiss_ivf for very large banks, which may miss neighbours."""
    n_components: int | None = None
    """Principal components of pca (None: chosen on validation data) or of the patches of patch_nn (None: pixels)."""
    patch_size: int | None = None
    """Side of the patches of patch_nn, in pixels; None: 5 or 9, chosen on validation data."""
    stride: int | None = None
    """Step between the patches of patch_nn; None: 1."""
    selection: str | None = None
    """How patch_nn chooses its bank: random (None) or k_centre."""
    remove_mean: bool = False
    """Subtract from each patch of patch_nn its mean, channel by channel."""
    nu: float | None = None
    """Share of normals outside of the soft boundary of deep_svdd, in (0, 1); None: the one-class objective."""
    temperature: float = 1.0
    """Of energy."""
    ridge: float = 1e-6
    """Added to the variances of features in mahalanobis and relative_mahalanobis."""
    tail_size: int = 25
    """Largest distances of a class that openmax fits its law to."""
    top_classes: int = 10
    """Classes whose activation openmax revises (alpha in its paper)."""
    network: str | None = None
    """Folder of the trained cobra whose network gets a bank of these data (`diffad.cobra.train` fits one at once)."""
    cobra_score: str = "cosine"
    """Score of cobra: cosine, classifier, sum or ensemble_released."""
    embedding: str = "projection"
    """What the cosine of cobra compares: projection or features."""
    adversarial_eps: str = "0"
    """Train autoencoder on images attacked within this radius, [0, 1] pixel units, such as 8/255; 0: on clean ones."""
    adversarial_norm: str = "linf"
    """Norm of that radius: linf or l2."""
    device: str = "cpu"
    """Where a detector with --backbone computes the features of the training images."""
    seed: int = 0
    """Of the fit and, without a generator, of the split."""
    output_dir: str | None = None
    """None: runs/DETECTOR."""


def given_options(config: FitConfig) -> dict[str, Any]:
    """Return the options of `OWNERS` whose value is not the default."""
    defaults = {field.name: field.default for field in fields(FitConfig)}
    values = {option: getattr(config, option) for option in OWNERS}
    return {option: value for option, value in values.items() if value != defaults[option]}
