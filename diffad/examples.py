"""A few test images kept with a run, so that its report can show what the numbers are about.

examples = make_examples(detector, subject, split.test, choose_examples(clean),
                         seed=0)
write_examples("runs/digits8", examples)
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from certify.checks import InputError
from certify.files import write_atomic
from certify.sampler import gaussian_noise
from diffad.conditions import Condition, IntArray, Subject
from diffad.detector import Detector

EXAMPLES = "examples.npz"
PICTURES = ("images", "reconstructions", "maps")
Pixels = np.ndarray[Any, np.dtype[np.float32]]


@runtime_checkable
class Pictures(Protocol):
    """What is needed of a set of test images."""

    @property
    def images(self) -> Tensor:
        """(images, channel, height, width) in [0, 1]."""


@dataclass(frozen=True)
class Examples:
    """Pictures of some test images for one subject.

    `index` (k,) are positions in the test set; `images` (k, channel, height, width) in [0, 1];
    `reconstructions` of the same shape and `maps` (k, height, width) are None where the detector has
    none.
    """

    subject: Subject
    index: IntArray
    images: Pixels
    reconstructions: Pixels | None
    maps: Pixels | None


def choose_examples(condition: Condition, each: int = 3) -> IntArray:
    """Indices of `each` normal and `each` anomalous images, spread evenly from lowest to highest score.

    The rule looks at ranks only, so that nobody picks the pretty ones.
    """
    chosen = []
    for label in (0, 1):
        members = np.flatnonzero(condition.images.labels == label)
        ranked = members[np.argsort(condition.bounds.lower[members], kind="stable")]
        places = np.unique(np.linspace(0, len(ranked) - 1, each).round().astype(int))
        chosen.append(condition.images.index[ranked[places]])
    return np.concatenate(chosen)


def make_examples(
    detector: Any,
    subject: Subject,
    pictures: Pictures,
    index: IntArray,
    *,
    seed: int,
    device: str | torch.device = "cpu",
) -> Examples:
    """Pictures of the images at `index`, with reconstruction and anomaly map where the detector has them.

    The reconstruction is of one noisy version at the subject's sigma: the first draw of the evaluation noise.
    """
    images = pictures.images[torch.as_tensor(index)].float()
    reconstructions = maps = None
    with torch.no_grad():
        if subject.sigma is not None and _offers(detector, "reconstruct"):
            noise = np.stack([gaussian_noise(seed, int(i), "evaluate", 0, images.shape[1:]) for i in index])
            noisy = (images.double() + subject.sigma * torch.from_numpy(noise)).float().to(device)
            reconstructions = _array(detector.reconstruct(noisy, subject.sigma))
        if _offers(detector, "anomaly_map"):
            maps = _array(detector.anomaly_map(images.to(device)))
    return Examples(subject, np.asarray(index, dtype=np.int64), _array(images), reconstructions, maps)


def write_examples(folder: Path | str, examples: Examples) -> Path:
    """Write `examples.npz` to a run folder, replacing an older one; half precision is enough to look at."""
    path = Path(folder) / EXAMPLES
    arrays = {
        "subject": np.array(json.dumps(list(examples.subject))),
        "index": examples.index,
        **{name: getattr(examples, name) for name in PICTURES if getattr(examples, name) is not None},
    }
    for name in set(PICTURES) & set(arrays):
        arrays[name] = arrays[name].astype(np.float16)
    write_atomic(path, lambda temporary: np.savez_compressed(temporary, allow_pickle=False, **arrays))
    return path


def read_examples(folder: Path | str) -> Examples | None:
    """Read the examples of a run folder; None if it holds none."""
    path = Path(folder) / EXAMPLES
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            pictures = {name: stored[name].astype(np.float32) for name in PICTURES if name in stored}
            subject = Subject(*json.loads(str(stored["subject"])))
            index = stored["index"]
    except (ValueError, KeyError, OSError, BadZipFile) as error:
        raise InputError(f"{path}: cannot be read ({error}); delete it and run the command again") from error
    return Examples(subject, index, pictures["images"], pictures.get("reconstructions"), pictures.get("maps"))


def _offers(detector: Any, name: str) -> bool:
    """Whether the detector has a method of its own; the contract's default only says that there is none."""
    method = getattr(type(detector), name, None)
    return method is not None and method is not getattr(Detector, name, None)


def _array(tensor: Tensor) -> Pixels:
    array: Pixels = tensor.detach().float().cpu().numpy()
    return array
