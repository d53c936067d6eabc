from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from diffad import load_detector
from diffad.cobra import Cobra
from diffad.cobra.config import CobraConfig
from diffad.cobra.finish import finish
from diffad.cobra.train import build_network_of
from diffad.data import load_data


@pytest.mark.parametrize("count", [5, 10])
def test_few_held_out_normals_set_a_threshold_in_exact_float32(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = load_data("digits", normal_class=8, resolution=8)
    split = replace(split, calibration=split.calibration.take(range(count)))
    config = CobraConfig(width=4, blocks=(1,), normal_class="8", resolution=8, output_dir=str(tmp_path))
    real, lowered = Cobra.embed, []

    def embed(self: Cobra, *given: Any) -> torch.Tensor:
        lowered.append(torch.backends.cudnn.allow_tf32)
        return real(self, *given)

    monkeypatch.setattr(Cobra, "embed", embed)
    detector = finish(config, build_network_of(config, split).eval(), split, 0)
    assert lowered
    assert not any(lowered)
    assert detector.threshold_ == float(detector.score_array(split.calibration.images).max())
    assert load_detector(tmp_path).threshold_ == detector.threshold_
