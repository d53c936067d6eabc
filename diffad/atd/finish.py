"""From the candidates to a detector: the choice, the threshold, the folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from certify.console import say
from certify.files import write_json
from diffad.atd.candidates import Candidates
from diffad.atd.config import AtdConfig
from diffad.atd.detector import Atd
from diffad.atd.network import Players
from diffad.data import DataSplit
from diffad.detector import allowed_quantile
from diffad.precision import exact_float32

SELECTION = "selection.json"


@exact_float32()
def finish(config: AtdConfig, players: Players, candidates: Candidates, split: DataSplit, steps: int) -> Atd:
    """Choose, calibrate and save the detector, in the float32 of the commands that will score with it.

    `selection.json` keeps the candidates, which of them was chosen, and on what.
    """
    if not candidates.measured_at(steps):
        candidates.add(players, steps)
    chosen, weights = candidates.choose()
    players.discriminator.load_state_dict(weights)
    detector = Atd.from_network(players.discriminator, candidates.backbone)
    device = next(players.parameters()).device
    detector.fit(split.train.images.to(device), seed=config.seed)
    detector.fit_info["training_step"] = int(chosen["step"])
    held_out = split.calibration.images.to(device)
    detector.calibrate(held_out, quantile=allowed_quantile(len(held_out)))
    detector.save_pretrained(config.output_dir)
    record: dict[str, Any] = {
        "data": "validation (held-out normals, an open set of another kind)",
        "open_data": list(config.open_data),
        "validation_open_data": list(config.validation_open_data),
        "select_on": config.select_on,
        "chosen": chosen,
        "candidates": candidates.rows(),
    }
    write_json(Path(config.output_dir) / SELECTION, record)
    say(
        f"chosen on {config.select_on}: step {chosen['step']} of {steps}; validation AUROC "
        f"{chosen['clean']:.3f} clean, {chosen['both']:.3f} attacked"
    )
    return detector
