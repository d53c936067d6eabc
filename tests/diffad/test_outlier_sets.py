from __future__ import annotations

import numpy as np
import pytest
from torch import Tensor

from certify.checks import InputError
from certify.metrics import auroc
from certify.types import ScoreBounds
from diffad import Detector
from diffad.data import load_data
from diffad.outlier_sets import auroc_over_sets, cue_aurocs, outlier_sets

OOD = {"protocol": "ood"}
LABELS = np.array([0, 0, 1, 1, 1])
DEFECTS = ["good", "good", "a/1", "b:x/1", "b:x/2"]


def test_each_set_stands_against_all_normals() -> None:
    sets = outlier_sets(OOD, LABELS, DEFECTS)
    assert {name: keep.tolist() for name, keep in sets.items()} == {
        "a": [True, True, True, False, False],
        "b:x": [True, True, False, True, True],
    }
    assert outlier_sets({"protocol": "one_class"}, LABELS, DEFECTS) == {}
    with pytest.raises(InputError, match="an anomaly names none"):
        outlier_sets(OOD, [0, 1], ["good", "5"])


def test_the_mean_is_not_the_pooled_auroc() -> None:
    scores = ScoreBounds.exact([0.0, 1.0, 2.0, 0.5, -1.0])
    found = auroc_over_sets(scores, LABELS, DEFECTS, OOD, "clean")
    assert found == {"a": 1.0, "b:x": 0.25, "mean": 0.625}
    pooled = float(auroc(scores, LABELS, "clean"))
    assert pooled == 0.5
    assert auroc_over_sets(scores, LABELS, DEFECTS, {}, "clean") == {"mean": pooled}


def test_sides_take_what_stands_for_the_images_left_alone() -> None:
    clean = ScoreBounds.exact([0.0, 1.0, 2.0, 2.0, 2.0])
    lower, upper = np.array([0.0, 1.0, 0.5, 0.5, 2.0]), np.array([3.0, 3.0, 2.0, 2.0, 2.0])
    attacked = ScoreBounds(lower, upper)
    assert auroc_over_sets(attacked, LABELS, DEFECTS, OOD, "in", clean)["mean"] == 0.0
    assert auroc_over_sets(attacked, LABELS, DEFECTS, OOD, "out", clean) == {
        "a": 0.5,
        "b:x": 0.75,
        "mean": 0.625,
    }


class RedOverBlue(Detector):
    """Sees the order of channels, and nothing of resampling."""

    name = "red_over_blue"

    def _fit(self, train: Tensor, seed: int) -> None:
        pass

    def _score(self, images: Tensor, noise: Tensor | None) -> Tensor:
        if images.shape[1] == 1:
            return images.mean((1, 2, 3))
        return images[:, 2].mean((1, 2)) - images[:, 0].mean((1, 2))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_detector_is_asked_about_copies_of_normals(
    channels: int, capsys: pytest.CaptureFixture[str]
) -> None:
    split = load_data(
        "digits",
        protocol="ood",
        normal_class="0,1",
        outliers=["rest"],
        channels=channels,
        limit=10,
        resolution=8,
    )
    tinted = split.test.images.clone()
    if channels == 3:
        tinted[:, 0] = tinted[:, 0] * 0.5
        split.test.images.copy_(tinted)
    detector = RedOverBlue().fit(split.train.images)
    found = cue_aurocs(detector, split)
    assert set(found) == {"cue_resampling", "cue_channel_order"} if channels == 3 else {"cue_resampling"}
    assert found["cue_resampling"] == pytest.approx(0.5, abs=0.2)
    if channels == 3:
        assert found["cue_channel_order"] == 0.0
    assert "red_over_blue tells normals from copies by AUROC resampling" in capsys.readouterr().err
