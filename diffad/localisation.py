"""How well anomaly maps find the defective pixels: pixel AUROC and PRO, exact, with a bootstrap over images.

Both read one ranking of all pixels of a test set. The pixel AUROC counts every defective pixel once; PRO, the
per-region overlap, counts every defective *region* once (Bergmann et al., "Uninformed Students", CVPR 2020): at a
threshold t it is the mean over regions C of |{map >= t} within C| / |C|, drawn against the share of normal pixels at or
above t, integrated up to a false-positive rate and divided by it. So PRO is the area under a ROC curve in which a pixel
of a region C weighs 1 / |C|, and at `max_fpr` 1 and regions of one size it is the pixel AUROC.

>>> import numpy as np
>>> masks = np.zeros((2, 4, 4), dtype=bool)
>>> masks[1, :2, :2] = True
>>> pixel_auroc(masks.astype(float), masks), pro(np.zeros((2, 4, 4)), masks)
(1.0, 0.15)
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from scipy.ndimage import label

from certify.checks import InputError
from certify.types import FloatArray

Maps: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Masks: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]

MAX_FPR = 0.3  # as published; false alarms on more than 30 % of the normal pixels localise nothing
BINS = 4096  # parts of the ranking in a bootstrap
EIGHT = np.ones(
    (3, 3), dtype=int
)  # pixels that touch at a corner are of one region, as in MVTec's evaluation


class RankedPixels:
    """The pixels of a test set from the highest map value to the lowest, ranked once for both metrics.

    Args:
        maps: (images, height, width), higher = more anomalous; finite, of any scale, the same for all images.
        masks: bool (images, height, width), True on defective pixels; those of normal images are empty. At least
            one pixel must be defective and one normal.

    The curves have a point at every distinct map value: no grid of thresholds. Tied pixels are joined by a straight
    line, which counts a tie one half. Costs a sort of all pixels, and 25 bytes a pixel.
    """

    def __init__(self, maps: Any, masks: Any) -> None:
        values, defective = check_maps(maps, masks)
        self.images = len(values)
        order = np.argsort(-values.ravel(), kind="stable")
        ranked = values.ravel()[order]
        self._ends = np.flatnonzero(
            np.append(ranked[1:] != ranked[:-1], True)
        )  # of each group of tied pixels
        self._image = (order // values[0].size).astype(np.int32)
        self._defective = defective.ravel()[order]
        self._shares = region_shares(defective).ravel()[order]

    def pixel_auroc(self, counts: Any = None) -> float:
        """Return the chance that a defective pixel has the higher value than a normal one; ties count one half.

        `counts` (images,), at least 0, says how often each image is in a resample; None: once.
        """
        return _area(*self._curve(self._defective, counts), 1.0)

    def pro(self, max_fpr: float = MAX_FPR, counts: Any = None) -> float:
        """Return the per-region overlap, integrated up to a false-positive rate in (0, 1] and divided by it.

        In [0, 1]: 1 for a map that ranks all defective pixels first, `max_fpr` / 2 for a constant one.
        `counts` as in `pixel_auroc`.
        """
        return _area(*self._curve(self._shares, counts), check_max_fpr(max_fpr)) / max_fpr

    def resampled(self, counts: Any, max_fpr: float = MAX_FPR) -> FloatArray:
        """Return pixel AUROC and PRO of many resamples, (resamples, 2), from `counts` (resamples, images).

        The ranking is cut into `BINS` parts of as many pixels, ties together, and pixels of one part count as tied. The
        errors are at most half the share of normal pixels in one part, that of PRO divided by `max_fpr`: a few in ten
        thousand, far below the spread of a bootstrap, for which this is.
        """
        often = self._check_counts(counts, 2)
        parts = np.repeat(self._ends, np.diff(self._ends, prepend=-1)) * BINS // len(self._image)
        places = self._image.astype(np.int64) * BINS + parts
        shape = (self.images, BINS)
        summed = (
            np.bincount(places, weights.astype(np.float64), self.images * BINS).reshape(shape)
            for weights in (self._defective, self._shares, ~self._defective)
        )
        defective, shares, alarms = (np.cumsum(often @ one, axis=1) for one in summed)
        found = np.empty((len(often), 2), dtype=np.float64)
        for place, (hits, overlap, false) in enumerate(zip(defective, shares, alarms, strict=True)):
            found[place, 0] = _area(*_rates(hits, false), 1.0)
            found[place, 1] = _area(*_rates(overlap, false), check_max_fpr(max_fpr)) / max_fpr
        return found

    def _check_counts(self, counts: Any, ndim: int) -> FloatArray:
        often = np.asarray(counts, dtype=np.float64)
        if (
            often.ndim != ndim
            or often.shape[-1] != self.images
            or not (np.isfinite(often) & (often >= 0)).all()
        ):
            raise InputError(f"counts: got {often.shape}, need {self.images} numbers of at least 0 each time")
        return often

    def _curve(self, weights: Any, counts: Any) -> tuple[FloatArray, FloatArray]:
        """Return false-positive rate and weighted hit rate at every distinct threshold, from (0, 0) to (1, 1)."""
        hits, alarms = weights.astype(np.float64), (~self._defective).astype(np.float64)
        if counts is not None:
            often = self._check_counts(counts, 1)[self._image]
            hits, alarms = hits * often, alarms * often
        return _rates(np.cumsum(hits)[self._ends], np.cumsum(alarms)[self._ends])


def pixel_auroc(maps: Any, masks: Any) -> float:
    """Return the AUROC of all pixels of all images together; arguments as in `RankedPixels`."""
    return RankedPixels(maps, masks).pixel_auroc()


def pro(maps: Any, masks: Any, max_fpr: float = MAX_FPR) -> float:
    """Return the per-region overlap up to `max_fpr`, normalised; arguments as in `RankedPixels`."""
    return RankedPixels(maps, masks).pro(max_fpr)


def region_shares(masks: Masks) -> FloatArray:
    """Return for each pixel 1 / size of its region, 0 outside; each region of each image adds up to 1.

    A region is a connected component of a mask, neighbours by edge or corner.
    """
    shares = np.zeros(masks.shape, dtype=np.float64)
    for place, mask in enumerate(masks):
        regions, _ = label(mask, structure=EIGHT)
        sizes = np.bincount(regions.ravel())
        shares[place][mask] = 1.0 / sizes[regions[mask]]
    return shares


def count_regions(masks: Masks) -> int:
    """Return the number of defective regions of all images."""
    return sum(int(label(mask, structure=EIGHT)[1]) for mask in masks)


def check_maps(maps: Any, masks: Any) -> tuple[Maps, Masks]:
    """Return maps and masks as arrays, or say what is wrong with them."""
    values, defective = np.asarray(maps), np.asarray(masks)
    if values.ndim != 3 or values.shape != defective.shape:
        raise InputError(
            f"maps: got {values.shape} with masks {defective.shape}, need both (images, height, width)"
        )
    if not np.issubdtype(values.dtype, np.floating) or not np.isfinite(values).all():
        raise InputError(f"maps: got {values.dtype} values, need finite floating-point numbers")
    if defective.dtype != np.bool_:
        raise InputError(f"masks: got {defective.dtype}, need bool, True on defective pixels")
    if not defective.any() or defective.all():
        found = "no" if not defective.any() else "only"
        raise InputError(f"masks: have {found} defective pixels; need defective and normal ones")
    return values, defective


def check_max_fpr(max_fpr: float) -> float:
    """Return a false-positive rate in (0, 1], or say what is allowed."""
    if not 0.0 < max_fpr <= 1.0:
        raise InputError(
            f"max_fpr: got {max_fpr}, need a false-positive rate in (0, 1], as published {MAX_FPR}"
        )
    return max_fpr


def _rates(hits: FloatArray, alarms: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return false-positive rate and hit rate from sums up to each threshold, with the point (0, 0) before them."""
    if hits[-1] <= 0 or alarms[-1] <= 0:
        raise InputError("counts: leave no defective or no normal pixel; draw images with defects too")
    return np.append(0.0, alarms / alarms[-1]), np.append(0.0, hits / hits[-1])


def _area(fpr: FloatArray, rate: FloatArray, limit: float) -> float:
    """Return the area under a curve of straight lines up to fpr = limit; at most `limit` in spite of rounding."""
    inside = int(np.searchsorted(fpr, limit, "right"))
    if inside < len(fpr):
        end = float(np.interp(limit, fpr[inside - 1 : inside + 1], rate[inside - 1 : inside + 1]))
        fpr, rate = np.append(fpr[:inside], limit), np.append(rate[:inside], end)
    return min(float(np.trapezoid(rate, fpr)), limit)
