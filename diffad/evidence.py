"""What an attack run keeps beside its rows: the attacked images, and an interval of each image's score.

A row holds an estimate. Whether an attacked image has left its certified interval is judged by draws that had no part
in choosing that image: `n` fresh ones of each, kept in order, from which an interval at any level can be read. A score
without noise is judged by its float64 enclosure.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from certify.bounds import order_ranks
from certify.checks import InputError
from certify.files import write_atomic
from certify.types import FloatArray, ScoreBounds
from diffad.conditions import Condition, IntArray

FOLDER = "attacked"


@dataclass(frozen=True)
class Evidence:
    """The attacked images of one condition and their scores, ordered by image index.

    `images` (n, c, h, w); `index` (n,) as in the rows; `draws` float64 (n, m) in ascending order, of which the score
    is the quantile `percentile`, or None without noise; then `enclosure` (2, n) holds the score. Without both,
    the images are all there is: to look at, and for their anomaly maps.
    """

    index: IntArray
    images: Tensor
    percentile: float | None = None
    draws: FloatArray | None = None
    enclosure: FloatArray | None = None

    @property
    def judges(self) -> bool:
        """Whether there is anything to read an interval from."""
        return self.draws is not None or self.enclosure is not None

    def interval(self, level: float) -> ScoreBounds:
        """Return two-sided intervals (n,) of the scores, each wrong with probability at most `level`.

        Exact order statistics at level / 2 an end (`certify.bounds.order_ranks`); an end that the draws are too few
        for is infinite. An enclosure is never wrong.
        """
        if not self.judges:
            raise InputError("evidence: holds images alone, neither draws nor an enclosure of their scores")
        if self.draws is None:
            assert self.enclosure is not None
            return ScoreBounds(self.enclosure[0], self.enclosure[1])
        assert self.percentile is not None
        count, draws = len(self.index), self.draws
        low, high = order_ranks(draws.shape[1], self.percentile, level / 2)
        ends = np.hstack([np.full((count, 1), -np.inf), draws, np.full((count, 1), np.inf)])
        return ScoreBounds(ends[:, low], ends[:, high])


def evidence_path(folder: Path, attacked: Condition) -> Path:
    """Return where a run folder keeps what belongs to an attack's rows."""
    name = hashlib.sha256(repr(attacked.key).encode()).hexdigest()[:8]
    words = (
        attacked.subject.detector,
        attacked.method or "attack",
        attacked.norm,
        f"{attacked.radius:g}",
        name,
    )
    return folder / FOLDER / ("-".join(words).replace(" ", "_").replace("/", "_") + ".safetensors")


def write_evidence(folder: Path, attacked: Condition, evidence: Evidence) -> None:
    """Keep the evidence of an attack's rows in its run folder, in place of older one."""
    tensors = {"index": torch.from_numpy(evidence.index), "images": evidence.images.contiguous()}
    if evidence.draws is not None:
        tensors["draws"] = torch.from_numpy(evidence.draws.astype(np.float32))
    if evidence.enclosure is not None:
        tensors["enclosure"] = torch.from_numpy(evidence.enclosure)
    about = {"rows": _rows(attacked), "percentile": str(evidence.percentile)}
    path = evidence_path(folder, attacked)
    write_atomic(path, lambda temporary: save_file(tensors, temporary, metadata=about))


def read_evidence(folder: Path, attacked: Condition) -> Evidence | None:
    """Return the evidence of an attack's rows; None if the folder has none, or one of other rows.

    Raises InputError for a file that is damaged.
    """
    path = evidence_path(folder, attacked)
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            found = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (no dictionary)
        index, images = found["index"].numpy(), found["images"]
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: cannot be read ({str(error).splitlines()[0]}); attack again") from error
    if about.get("rows") != _rows(attacked):
        return None
    if "draws" in found:
        return Evidence(index, images, float(about["percentile"]), found["draws"].double().numpy())
    return Evidence(index, images, enclosure=found["enclosure"].numpy() if "enclosure" in found else None)


def _rows(attacked: Condition) -> str:
    """A digest of the rows, so that no evidence is taken for that of an earlier or a later attack."""
    order = np.argsort(attacked.images.index)
    columns = (attacked.images.index[order], attacked.bounds.lower[order], attacked.bounds.upper[order])
    return hashlib.sha256(b"".join(np.ascontiguousarray(column).tobytes() for column in columns)).hexdigest()
