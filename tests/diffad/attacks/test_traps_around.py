"""The rest of the fifteen traps (see `test_traps.py`): checkpoints, resolutions, dead branches, data and reports."""

from __future__ import annotations

from dataclasses import replace

import broken
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from certify.checks import InputError
from diffad import detector_class
from diffad.attack_record import attack_record
from diffad.attacks import attack
from diffad.attacks.checks import run_checks
from diffad.compare import check_comparable
from diffad.conditions import Subject, TestedImages, attack_condition
from diffad.data import load_data
from diffad.metric_rows import auroc_table

IMAGES, LABELS = broken.images(), broken.labels()
WEIGHTS = torch.randn(broken.SHAPE, generator=torch.Generator().manual_seed(3))


def test_trap_08_normalised_twice_or_a_radius_in_normalised_units():
    """The mean and the deviation live inside the detector; eps is measured on the image that is given to it."""
    mean, deviation, eps = 0.3, 0.25, 0.05

    def score(images: Tensor) -> Tensor:
        return ((images - mean) / deviation * WEIGHTS).flatten(1).sum(1)

    grey = torch.full((2, *broken.SHAPE), 0.5)
    found = attack(score, grey, [0, 1], norm="linf", eps=eps, steps=20)
    assert float((found.images - grey).abs().max()) == pytest.approx(eps, abs=1e-6)
    assert found.clean_scores[0] == pytest.approx((0.5 - mean) / deviation * float(WEIGHTS.sum()), rel=1e-4)
    gain = eps / deviation * float(WEIGHTS.abs().sum())
    np.testing.assert_allclose(np.abs(found.scores - found.clean_scores), gain, rtol=1e-4)
    with pytest.raises(InputError, match="8/255"):
        attack(score, grey, [0, 1], norm="linf", eps=8)
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        attack(score, 2 * grey - 1.5, [0, 1], norm="linf", eps=eps)


def test_trap_09_weights_that_were_not_loaded(tmp_path):
    """`strict=False` with a wrong prefix loads nothing, and the score of the initial values is evaluated."""
    detector = detector_class("pixel_mean")().fit(
        torch.rand(5, *broken.SHAPE, generator=torch.Generator().manual_seed(0))
    )
    detector.save_pretrained(tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    tensors = load_file(file)
    save_file({f"module.{name}": tensor for name, tensor in tensors.items()}, file)
    with pytest.raises(InputError):
        type(detector).from_pretrained(tmp_path)
    save_file({name: torch.zeros_like(tensor) for name, tensor in tensors.items()}, file)
    with pytest.raises(InputError, match="do not belong together"):
        type(detector).from_pretrained(tmp_path)
    save_file(tensors, file)
    assert type(detector).from_pretrained(tmp_path).fingerprint() == detector.fingerprint()


def test_trap_10_one_radius_at_two_resolutions(tmp_path, synthetic):
    """An Linf radius buys four times as much of a sum over pixels at twice the side; L2 twice as much."""

    def total(images: Tensor) -> Tensor:
        return nn.functional.interpolate(images, size=(4, 4), mode="area").flatten(1).sum(1)

    large = nn.functional.interpolate(IMAGES, size=(8, 8), mode="nearest")
    options = {"norm": "l2", "eps": 0.2, "steps": 20}
    small_run, large_run = attack(total, IMAGES, LABELS, **options), attack(total, large, LABELS, **options)
    np.testing.assert_allclose(small_run.clean_scores, large_run.clean_scores, rtol=1e-5)
    ratio = np.abs(small_run.scores - small_run.clean_scores) / np.abs(
        large_run.scores - large_run.clean_scores
    )
    np.testing.assert_allclose(ratio, 2.0, rtol=1e-3)
    tested = TestedImages(
        np.arange(12), tuple("abcdefghijkl"), LABELS.numpy(), ("good",) * 6 + ("stain",) * 6
    )
    for found, side in ((small_run, 4), (large_run, 8)):
        subject = Subject("toy", side, "total", "", "", None)
        condition = attack_condition(
            subject, tested, found.bounds(), norm="l2", eps=0.2, n=0, seed=0, method="pgd"
        )
        record = attack_record(condition, found, [], seconds=0.0)
        assert (record["attack_resolution"], record["resolution"]) == ([1, side, side], side)
    one, other = synthetic.run(tmp_path / "a"), synthetic.run(tmp_path / "b", resolution=32)
    with pytest.raises(InputError, match="16 pixels"):
        check_comparable([one, other])


def test_trap_14_branches_without_a_gradient():
    """ATD's generator was fed to the discriminator detached, and never trained."""

    class Partly(broken.Sound):
        def score(self, images: Tensor) -> Tensor:
            halves = (images - self.prototype).flatten(1).square().chunk(2, dim=1)
            return halves[0].sum(1) + halves[1].detach().sum(1)

    with pytest.raises(InputError, match="no gradient in its input"):
        attack(lambda x: broken.Sound().score(x.detach()), IMAGES, LABELS, norm="l2", eps=0.1)
    partly = Partly()
    found = attack(partly, IMAGES, LABELS, norm="l2", eps=0.1, steps=5)
    (outcome,) = run_checks(partly, IMAGES, LABELS, found, only=["gradient_direction"])
    assert outcome.failed


def test_trap_15_one_number_for_all_sides_and_sets_that_overlap(tmp_path, synthetic):
    rows = auroc_table(synthetic.run(tmp_path / "run"))
    sides = {row["side"] for row in rows if row["condition"] == "attack"}
    assert sides == {"in", "out", "both"}
    assert any(row["side"] == "clean" for row in rows)
    # a failed attack on anomalies hides behind the one on normals, in `both` but not in `out`
    sound = broken.Sound()
    found = attack(sound, IMAGES, LABELS, norm="l2", eps=0.6, steps=20)
    lame = replace(found, scores=np.where(found.labels == 1, found.clean_scores, found.scores))
    only = ["doubling", "black_boxes", "iteration"]
    assert all(o.passed for o in run_checks(sound, IMAGES, LABELS, found, only=only))
    assert any(
        o.failed and "side out" in o.detail for o in run_checks(sound, IMAGES, LABELS, lame, only=only)
    )
    split = load_data("digits", normal_class="8")
    with pytest.raises(InputError, match="the same picture"):
        replace(split, calibration=split.train)
