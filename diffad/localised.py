"""Rows of localisation: how well a detector's anomaly maps find the masks of a test set, clean, attacked and certified.

An attacked row reads the maps of images that an attack run kept. That attack was aimed at the score of the image, not
at the map: it says what becomes of the map on the way, and is no bound on what an attack of the map could do.

A certified row is such a bound, without noise. Where each pixel of the map m is L-Lipschitz in the image, no change of
L2 size r takes pixel p out of [m_p - L r, m_p + L r]. Both metrics rise with the values of defective pixels and fall
with those of normal ones, so they are at least what they are with the lower ends on the masks and the upper ends
elsewhere. All pixels at once can't reach those ends, so the bound is not tight.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from certify.certificate import lipschitz_bounds
from certify.checks import InputError
from certify.console import progress
from certify.metrics import auroc
from certify.resampling import resampled_counts
from certify.types import FloatArray, ScoreBounds
from certify.uncertainty import bootstrap_interval
from diffad.conditions import Condition
from diffad.data import DataSplit, ImageSet
from diffad.detector import Detector
from diffad.evidence import read_evidence
from diffad.localisation import MAX_FPR, Maps, RankedPixels, count_regions
from diffad.metric_rows import Row
from diffad.results import read_run
from diffad.subject import entry_name

LEVEL = 0.95  # of the intervals
CLEAN = {"condition": "clean", "norm": "", "radius": 0.0, "method": "", "attacked": ""}
BALL = 1e-6  # that rounding may put an image outside its ball, relative to the radius


@dataclass(frozen=True)
class Threat:
    """What a row is about: its columns of `CLEAN`, the values of the maps that count, and the scores of the images.

    `maps` (n, h, w) are the worst ones under a certificate, with the interval of each score in `scores` (n,).
    """

    columns: Row
    maps: Maps
    scores: ScoreBounds


def threats(
    detector: Detector,
    split: DataSplit,
    *,
    attack: Path | None = None,
    radii: Sequence[float] = (),
    batch_size: int = 32,
    device: str = "cpu",
) -> list[Threat]:
    """Return the clean images, every attack on this detector that the run folder `attack` has kept, and certificates.

    Args:
        attack: raises InputError where it is of other data or of another detector, or kept no attacked image.
        radii: L2 radii to certify; raises InputError where the map has no proven Lipschitz constant.
        batch_size, device: of the forward passes.
    """
    attacked = [] if attack is None else list(_attacked(detector, split, attack))
    if radii and detector.map_lipschitz is None:
        raise InputError(
            f"--radii: the map of {detector.name} has no proven Lipschitz constant; "
            "those of pixel_mean, pca and patch_nn have"
        )
    found = [
        Threat(
            columns,
            anomaly_maps(detector, images, batch_size=batch_size, device=device),
            _scores(detector, images, batch_size, device),
        )
        for columns, images in [(CLEAN, split.test.images), *attacked]
    ]
    return [*found, *(_certified(detector, split.test, radii, batch_size, device) if radii else [])]


def anomaly_maps(
    detector: Detector, images: Float[Tensor, "n c h w"], *, batch_size: int = 32, device: str = "cpu"
) -> Maps:
    """Return the anomaly maps (n, h, w) of many images, float32."""
    parts = [
        detector.anomaly_map(batch.to(device)).float().cpu().numpy()
        for batch in progress(torch.split(images, batch_size), "anomaly maps")
    ]
    return np.concatenate(parts)


def localisation_row(
    detector: Detector,
    test: ImageSet,
    threat: Threat,
    *,
    max_fpr: float = MAX_FPR,
    resamples: int = 1000,
    seed: int = 0,
) -> Row:
    """Return pixel AUROC, PRO and image AUROC of one threat, with percentile intervals of a bootstrap over images.

    Normals and anomalies are resampled each by itself, for all three metrics alike. `kinds` holds the two of pixels
    against the normals for each kind of defect.
    """
    masks, labels = masks_of(test), test.labels.numpy()
    ranked = RankedPixels(threat.maps, masks)
    image = bootstrap_interval(auroc, threat.scores, labels, seed=seed, resamples=resamples, level=LEVEL)
    drawn = _resampled(ranked, labels, max_fpr, resamples, seed)
    return {
        "detector": detector.row_name,
        "score_name": getattr(detector, "score_name", ""),
        **threat.columns,
        "normals": int((labels == 0).sum()),
        "anomalies": int((labels == 1).sum()),
        "regions": count_regions(masks),
        "defective_share": float(masks.mean()),
        "pixel_auroc": ranked.pixel_auroc(),
        "pixel_auroc_interval": _interval(drawn[:, 0]),
        "pro": ranked.pro(max_fpr),
        "pro_interval": _interval(drawn[:, 1]),
        "image_auroc": image.value,
        "image_auroc_interval": [image.low, image.high],
        "max_fpr": max_fpr,
        "resamples": resamples,
        "level": LEVEL,
        "kinds": _by_kind(ranked, test, max_fpr),
    }


def masks_of(test: ImageSet) -> Any:
    """Return the masks of the test images, bool (n, h, w), or say that there are none."""
    if test.masks is None:
        raise InputError(
            "--data: has no masks of its defects; give mvtec:FOLDER with ground_truth/, or textures:FAMILY"
        )
    return test.masks.numpy()


def _scores(detector: Detector, images: Tensor, batch_size: int, device: str) -> ScoreBounds:
    parts = [detector.score_array(batch.to(device)) for batch in torch.split(images, batch_size)]
    return ScoreBounds.exact(np.concatenate(parts))


def _certified(
    detector: Detector, test: ImageSet, radii: Sequence[float], batch_size: int, device: str
) -> Iterator[Threat]:
    """Yield what no attacker in an L2 ball can go below, the smallest radius first."""
    batches = [batch.to(device) for batch in torch.split(test.images, batch_size)]
    low, high = _joined(detector.map_interval(batch) for batch in progress(batches, "map intervals"))
    lower, upper = _joined(detector.score_interval(batch) for batch in batches)
    assert detector.map_lipschitz is not None
    assert detector.lipschitz is not None
    masks = masks_of(test)
    for radius in sorted(set(radii)):
        pixels = lipschitz_bounds(low.ravel(), high.ravel(), detector.map_lipschitz, radius).at(0)
        worst = np.where(masks, pixels.lower.reshape(masks.shape), pixels.upper.reshape(masks.shape))
        columns = {**CLEAN, "condition": "certified", "norm": "l2", "radius": float(radius)}
        yield Threat(columns, worst, lipschitz_bounds(lower, upper, detector.lipschitz, radius).at(0))


def _joined(parts: Iterable[tuple[FloatArray, FloatArray]]) -> tuple[FloatArray, FloatArray]:
    """Return lower and upper ends of all images from those of batches."""
    lower, upper = zip(*parts, strict=True)
    return np.concatenate(lower), np.concatenate(upper)


def _attacked(detector: Detector, split: DataSplit, folder: Path) -> Iterator[tuple[Row, Tensor]]:
    """Yield the columns and images of the attacks of a run folder, the smallest radius of each norm first."""
    run = read_run(folder)
    if run.manifest["data"]["fingerprint"] != split.fingerprint():
        raise InputError(
            f"--attack: {folder} attacked other images than these of {split.name}; give the same --data, --resolution, "
            "--limit and --data_seed"
        )
    known, own = run.manifest["detectors"], detector.fingerprint()
    rows = [one for one in run.conditions if one.condition == "attack"]
    of_detector = [one for one in rows if known.get(entry_name(one.subject, known)) == own]
    if not of_detector:
        attacked = sorted({one.subject.detector for one in rows}) or ["none"]
        raise InputError(
            f"--attack: {folder} holds no attack on this {detector.name}, but on {', '.join(attacked)}; fit or "
            "load the one that was attacked"
        )
    found = [kept for one in of_detector if (kept := _kept(folder, one, split.test.images)) is not None]
    if not found:
        raise InputError(f"--attack: {folder} kept no attacked image; attack again")
    yield from sorted(found, key=lambda kept: (kept[0]["norm"], kept[0]["radius"]))


def _kept(folder: Path, attacked: Condition, clean: Tensor) -> tuple[Row, Tensor] | None:
    """Return columns and attacked images of one condition, in the order of the test set; None where none were kept."""
    kept = read_evidence(folder, attacked)
    if kept is None:
        return None
    order = np.argsort(kept.index)
    if not np.array_equal(kept.index[order], np.arange(len(clean))):
        raise InputError(
            f"--attack: {folder} kept {len(order)} images of {attacked.name}, need all {len(clean)}"
        )
    images = kept.images[torch.from_numpy(order)]
    change = (images.double() - clean.double()).flatten(1)
    size = float(torch.linalg.vector_norm(change, 2 if attacked.norm == "l2" else torch.inf, dim=1).max())
    if size > attacked.radius * (1 + BALL):
        raise InputError(
            f"--attack: {folder} kept images that lie {size:g} from these, beyond {attacked.name}"
        )
    columns = {
        "condition": "attack",
        "norm": attacked.norm,
        "radius": attacked.radius,
        "method": attacked.method,
        "attacked": attacked.subject.label,
    }
    return columns, images


def _resampled(ranked: RankedPixels, labels: Any, max_fpr: float, resamples: int, seed: int) -> FloatArray:
    """Return pixel AUROC and PRO of each resample of the images, (resamples, 2)."""
    anomalous = labels == 1
    anomalies, normals = resampled_counts(int(anomalous.sum()), int((~anomalous).sum()), seed, resamples)
    counts = np.empty((resamples, len(labels)), dtype=np.float64)
    counts[:, anomalous], counts[:, ~anomalous] = anomalies, normals
    return ranked.resampled(counts, max_fpr)


def _interval(drawn: FloatArray) -> list[float]:
    low, high = np.quantile(drawn, [(1.0 - LEVEL) / 2, (1.0 + LEVEL) / 2])
    return [float(low), float(high)]


def _by_kind(ranked: RankedPixels, test: ImageSet, max_fpr: float) -> dict[str, Row]:
    """Return the two metrics of each kind of defect with all normals, by kind."""
    defects, normal = np.array(test.defects), test.labels.numpy() == 0
    found: dict[str, Row] = {}
    for kind in sorted(set(defects[~normal].tolist())):
        own = ~normal & (defects == kind)
        counts = (normal | own).astype(np.float64)
        found[kind] = {
            "anomalies": int(own.sum()),
            "pixel_auroc": ranked.pixel_auroc(counts),
            "pro": ranked.pro(max_fpr, counts),
        }
    return found
