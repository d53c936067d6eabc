"""Candidates for the detector: the discriminator at several steps, measured on validation data, and the choice of one.

Validation is held-out normals against an open set that was neither trained on nor is tested on. Every candidate keeps
its weights, so that it costs no training to choose anew, and a resumed run knows all that came before.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from safetensors.torch import load_file, save_file
from sklearn.metrics import roc_auc_score
from torch import Tensor

from certify.files import write_atomic
from diffad.atd.config import AtdConfig
from diffad.atd.detector import Atd
from diffad.atd.network import Players
from diffad.attacks import attack
from diffad.backbones import Backbone
from diffad.precision import exact_float32
from diffad.training.log import StepLog, read_log

VALIDATION, FOLDER = "validation.jsonl", "candidates"
_MEASURED = {"attacked": "both", "clean": "clean", "last": "step"}


@dataclass(frozen=True, eq=False)
class Validation:
    """What candidates are compared on.

    Attributes:
        normals: held-out in-distribution images (n, c, h, w).
        others: images of the open set of validation (m, c, h, w).
    """

    normals: Float32[Tensor, "n c h w"]
    others: Float32[Tensor, "m c h w"]

    @exact_float32()
    def aurocs(self, detector: Atd, config: AtdConfig, device: torch.device) -> dict[str, float]:
        """Return the AUROC `clean`, with normals (`in`), open-set images (`out`) or `both` attacked by PGD."""
        images = torch.cat([self.normals, self.others]).to(device)
        labels = np.repeat([0, 1], [len(self.normals), len(self.others)])
        threat = config.validation_threat
        found = attack(
            detector,
            images,
            labels,
            norm=threat.norm,
            eps=threat.eps,
            steps=config.attack_steps,
            batch_size=256,
            device=device,
            seed=config.seed,
        )
        clean, worst = found.clean_scores, found.scores
        shown = {
            "clean": clean,
            "in": np.where(labels == 0, worst, clean),
            "out": np.where(labels == 1, worst, clean),
            "both": worst,
        }
        return {side: float(roc_auc_score(labels, scores)) for side, scores in shown.items()}


class Candidates:
    """Measures and keeps the discriminator as training goes on.

    Args:
        config: of the training; its output folder receives `validation.jsonl` and `candidates/`.
        validation: what they are compared on.
        backbone: the frozen network in front of the discriminator; None in pixel space.
        shape: (channel, height, width) of an image.
        resumed_at: step that the run resumes from; what a stopped run measured beyond it is dropped.
    """

    def __init__(
        self,
        config: AtdConfig,
        validation: Validation,
        backbone: Backbone | None,
        shape: tuple[int, int, int],
        *,
        resumed_at: int,
    ) -> None:
        self.config, self.validation, self.backbone, self.shape = config, validation, backbone, shape
        self.folder = Path(config.output_dir)
        self.log = StepLog(self.folder / VALIDATION, resumed_at=resumed_at)

    def add(self, players: Players, step: int) -> None:
        """Measure the discriminator of these players, and keep it: its weights first, then the line that names them."""
        device = next(players.parameters()).device
        detector = Atd.from_network(players.discriminator, self.backbone)
        detector.image_shape = self.shape
        row: dict[str, Any] = {"step": step, **self.validation.aurocs(detector, self.config, device)}
        weights = {
            key: value.detach().cpu().contiguous()
            for key, value in players.discriminator.state_dict().items()
        }
        (self.folder / FOLDER).mkdir(parents=True, exist_ok=True)
        write_atomic(self._path(step), lambda path: save_file(weights, path))
        self.log.write(row)

    def measured_at(self, step: int) -> bool:
        """Return whether the discriminator of this step is among the candidates."""
        return any(row["step"] == step for row in self.rows())

    def rows(self) -> list[dict[str, Any]]:
        """Return what was measured: step, clean, in, out, both."""
        return read_log(self.folder / VALIDATION)

    def choose(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return the best candidate's measures and weights; of equals the one trained longest."""
        measured = _MEASURED[self.config.select_on]
        best = max(self.rows(), key=lambda row: (row[measured], row["step"]))
        return best, load_file(self._path(int(best["step"])))

    def _path(self, step: int) -> Path:
        return self.folder / FOLDER / f"step-{step}.safetensors"
