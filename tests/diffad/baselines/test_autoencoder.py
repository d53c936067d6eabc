"""The autoencoder: its linear relative in closed form, its adversarial twin, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError

from certify import ScoreBounds, auroc
from certify.checks import InputError
from diffad import load_detector
from diffad.attacks import attack
from diffad.baselines.autoencoder import Autoencoder
from diffad.cli import main
from diffad.data import DataSplit, load_data


@pytest.fixture(scope="module")
def split() -> DataSplit:
    return load_data("digits", normal_class="8", resolution=8, limit=30)


def attacked(detector: Autoencoder, split: DataSplit) -> dict[str, float]:
    """AUROC by side under PGD of L2 size 1."""
    labels = split.test.labels.numpy()
    found = attack(detector, split.test.images, labels, norm="l2", eps=1.0, method="pgd", steps=20)
    clean = ScoreBounds.exact(found.clean_scores)
    worst = ScoreBounds(
        np.minimum(found.scores, found.clean_scores), np.maximum(found.scores, found.clean_scores)
    )
    return {side: float(auroc(worst, labels, side, clean)) for side in ("clean", "in", "out", "both")}


def test_the_score_is_the_norm_of_what_is_not_given_back(split: DataSplit) -> None:
    detector = Autoencoder(hidden=8, code=3, steps=3).fit(split.train.images)
    images = split.test.images[:4]
    inner = images.flatten(1)
    for layer in range(4):
        inner = inner @ getattr(detector, f"weight_{layer}").T + getattr(detector, f"bias_{layer}")
        inner = torch.nn.functional.gelu(inner) if layer < 3 else inner
    residual = (images.flatten(1) - inner).view_as(images)
    torch.testing.assert_close(detector.score(images), residual.flatten(1).norm(dim=1))
    torch.testing.assert_close(detector.anomaly_map(images), residual.norm(dim=1))


def test_adversarial_training_holds_normals_and_anomalies_no_better_than_before() -> None:
    """What it sees is attacked normals: their scores are harder to raise, those of anomalies as easy to lower."""
    split = load_data("digits", normal_class="8", resolution=16, limit=30)
    plain, twin = (
        attacked(Autoencoder(adversarial_eps=eps).fit(split.train.images), split) for eps in (0.0, 0.2)
    )
    assert min(plain["clean"], twin["clean"]) > 0.95
    assert plain["both"] < 0.05
    assert plain["in"] < 0.4
    assert twin["in"] > plain["in"] + 0.2
    assert twin["both"] < 0.2


def test_batches_are_drawn_from_the_seed(split: DataSplit) -> None:
    one, same, other = (
        Autoencoder(hidden=8, code=3, steps=5, batch_size=10).fit(split.train.images, seed=seed)
        for seed in (1, 1, 2)
    )
    assert one.fingerprint() == same.fingerprint() != other.fingerprint()


def test_what_cannot_be_trained_is_refused(split: DataSplit) -> None:
    for bad in ({"code": 0}, {"steps": 1.5}, {"learning_rate": 0}, {"adversarial_eps": -1.0}):
        with pytest.raises((InputError, TypeCheckError), match=next(iter(bad)).replace("adversarial_", "")):
            Autoencoder(**bad)
    with pytest.raises(InputError, match="allowed are l2, linf"):
        Autoencoder(adversarial_norm="l1")
    with pytest.raises(InputError, match="need fewer than pixels"):
        Autoencoder(code=64).fit(split.train.images)
    with pytest.raises(InputError, match="lower learning_rate"):
        Autoencoder(steps=20, learning_rate=1e30).fit(split.train.images)


def test_it_is_fitted_from_the_shell(tmp_path: Path) -> None:
    words = ["--data", "digits", "--normal_class", "8", "--resolution", "8", "--adversarial_eps", "8/255"]
    assert main(["fit", "--detector", "autoencoder", *words, "--output_dir", str(tmp_path / "ae")]) == 0
    loaded = load_detector(tmp_path / "ae")
    assert isinstance(loaded, Autoencoder)
    assert loaded.adversarial_eps == 8 / 255
    assert loaded.score_name == "adversarial linf 0.0314"
    assert json.loads((tmp_path / "ae" / "manifest.json").read_text())["detectors"].keys() == {"autoencoder"}
