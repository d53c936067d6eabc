"""Checks at the boundary: what was given, what is allowed, what to do, in one line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


class InputError(ValueError):
    """A user's input that cannot be used. Commands print it in one line and exit with 1."""


def check_images(images: Tensor, *, name: str = "images") -> Tensor:
    """Return `images` if it is a finite, non-empty float tensor (batch, channel, height, width) in [0, 1]."""
    if not isinstance(images, Tensor):
        raise InputError(
            f"{name}: got {type(images).__name__}, need a torch tensor (batch, channel, height, width)"
        )
    if images.ndim != 4:
        raise InputError(f"{name}: got shape {tuple(images.shape)}, need (batch, channel, height, width)")
    if images.numel() == 0:
        raise InputError(
            f"{name}: got shape {tuple(images.shape)}, which holds no pixel; need at least one image"
        )
    if not images.is_floating_point():
        raise InputError(
            f"{name}: got {images.dtype}, need floating point in [0, 1] (divide 8-bit images by 255)"
        )
    detached = images.detach()
    if not bool(torch.isfinite(detached).all()):
        bad = int((~torch.isfinite(detached)).flatten(1).any(1).nonzero()[0])
        raise InputError(f"{name}: image {bad} of the batch holds NaN or infinity; remove or repair it")
    low, high = float(detached.min()), float(detached.max())
    if low < 0.0 or high > 1.0:
        raise InputError(
            f"{name}: values in [{low:.4g}, {high:.4g}], need [0, 1]; do not normalise before the detector"
        )
    return images


def check_binary(labels: Any, count: int | None = None) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return labels as int64 (count,), 0 normal and 1 anomalous; one class alone will do."""
    array = np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels)
    if array.ndim != 1 or array.size == 0:
        raise InputError(f"labels: got shape {array.shape}, need one label an image")
    if count is not None and array.size != count:
        raise InputError(f"labels: got {array.size} for {count} images; need one label an image")
    # of text, numpy would compare "0" with 0 as equal
    if array.dtype.kind not in "biuf" or not np.isin(array, (0, 1)).all():
        found = list(dict.fromkeys(array.tolist()))[:5]
        raise InputError(f"labels: got values {found}, allowed are 0 (normal) and 1 (anomalous)")
    return array.astype(np.int64)


def check_labels(labels: Any, count: int | None = None) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return labels as int64 (count,), 0 normal and 1 anomalous, both present."""
    array = check_binary(labels, count)
    if array.min() == array.max():
        kind = "normal" if array.max() == 0 else "anomalous"
        raise InputError(
            f"labels: all {array.size} images are {kind}; AUROC needs both classes, add the other"
        )
    return array


def check_probability(value: float, name: str) -> float:
    """Return `value` if it lies strictly between 0 and 1."""
    if not 0.0 < value < 1.0:
        raise InputError(f"{name}: got {value}, need a value strictly between 0 and 1")
    return float(value)


def check_level(alpha: float) -> float:
    """Return `alpha` if it is a one-sided level strictly between 0 and 0.5."""
    if not 0.0 < alpha < 0.5:
        raise InputError(f"alpha: got {alpha}, need a one-sided level strictly between 0 and 0.5")
    return float(alpha)


def check_rate(p0: float, complement: float | None = None) -> float:
    """Return 1 - p0 of a rate in (0, 1), to as many digits as are known: `complement` itself if given."""
    if complement is None:
        return 1.0 - check_probability(p0, "p0")
    check_probability(complement, "complement")
    if abs(p0 - (1.0 - complement)) > 1e-12:
        raise InputError(f"complement: got {complement}, need 1 - p0 = {1.0 - p0}")
    return float(complement)


def check_positive(value: float, name: str) -> float:
    """Return `value` if it is finite and above 0."""
    if not np.isfinite(value) or value <= 0:
        raise InputError(f"{name}: got {value}, need a finite value above 0")
    return float(value)


def check_radii(radii: Iterable[float]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return L2 radii as float64, non-empty, finite and not negative."""
    array = np.atleast_1d(
        np.asarray(list(radii) if not isinstance(radii, np.ndarray) else radii, dtype=np.float64)
    )
    if array.ndim != 1 or array.size == 0:
        raise InputError("radii: got none; need at least one, for example 0,0.1,0.25")
    if not np.isfinite(array).all() or (array < 0).any():
        raise InputError(f"radii: got {array.tolist()}, need finite values of at least 0")
    return array


def check_device(device: str) -> str:
    """Return `device` if this machine and this PyTorch can compute there."""
    try:
        if str(torch.device(device)) != device:  # the index is one byte: cuda:4096 would be cuda:0
            raise RuntimeError(f"read as {torch.device(device)}")
        torch.empty(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"device: {device!r} cannot be used ({reason}); use cpu, cuda or cuda:0") from None
    return device


def check_choice(value: str, allowed: Sequence[str], name: str) -> str:
    """Return `value` if it is one of `allowed`."""
    if value not in allowed:
        raise InputError(f"{name}: got {value!r}, allowed are {', '.join(allowed)}")
    return value
