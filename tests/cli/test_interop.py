"""Foreign detectors from the shell: attacked, certified, compared, saved and certified from their folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from certify import console
from certify.cli import main as certify
from diffad import load_detector
from diffad.cli import main

DATA = ["--data", "digits", "--normal_class", "8", "--resolution", "8", "--limit", "4", "--sigma", "0.25"]
CERTIFY = [
    *DATA,
    "--n",
    "100",
    "--radii",
    "0,0.05",
    "--smoothing",
    "input",
    "--no_baselines",
    "--no_examples",
]
ATTACK = [*DATA, "--n", "100", "--eps", "0.05", "--checks", "none"]
MODULE = "def brightness(images):\n    return images.mean((1, 2, 3))\n"


@pytest.mark.parametrize(
    ("detector", "attack", "label"),
    [
        ("scores_for_cli:brightness", ["--steps", "2", "--eot", "2"], "callable:scores_for_cli.brightness"),
        ("sklearn:OneClassSVM,nu=0.1", ["--method", "square", "--steps", "4"], "sklearn:OneClassSVM"),
    ],
)
def test_a_foreign_detector_is_certified_attacked_and_compared(
    detector: str, attack: list[str], label: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("scores_for_cli.py").write_text(MODULE)
    assert certify(["--detector", detector, *CERTIFY, "--output_dir", "run"]) == console.DONE
    assert main(["attack", "--detector", detector, *ATTACK, *attack, "--output_dir", "run"]) == console.DONE
    capsys.readouterr()
    assert main(["compare", "run", "--output_dir", "compared", "--json"]) == console.DONE
    assert label in capsys.readouterr().out
    commands = json.loads(Path("run/manifest.json").read_text())["commands"]
    assert [entry["config"]["detector"] for entry in commands] == [detector, detector]


def test_a_fitted_folder_is_certified_like_the_name(capsys: pytest.CaptureFixture[str]) -> None:
    fitted = ["--detector", "sklearn:OneClassSVM,nu=0.1", *DATA[:6]]
    assert main(["fit", *fitted]) == console.DONE
    assert capsys.readouterr().out.strip() == "runs/sklearn-OneClassSVM"
    for detector, folder in (("runs/sklearn-OneClassSVM", "a"), (fitted[1], "b")):
        assert certify(["--detector", detector, *CERTIFY, "--output_dir", folder, "--json"]) == console.DONE
    first, second = (json.loads(line)["auroc"] for line in capsys.readouterr().out.splitlines())
    assert first == second


def test_a_purified_detector_is_certified_by_denoise(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [*DATA[:8], "--sigma", "0.25", "--n", "50", "--batch_size", "50", "--output_dir", "run"]
    detector = ["--detector", f"purified:pixel_nn,diffusion={trained},sigma=0.1,draws=2"]
    words = ["--radii", "0,0.05", "--no_baselines", "--no_examples"]
    assert certify([*detector, *options, *words]) == console.DONE
    assert "purified (pixel_nn), denoise, σ = 0.25" in capsys.readouterr().out


def test_a_fitted_folder_is_written_as_a_graph(capsys: pytest.CaptureFixture[str]) -> None:
    data = ["--data", "digits", "--normal_class", "8", "--resolution", "8"]
    assert main(["fit", "--detector", "pixel_mean", *data, "--output_dir", "fitted"]) == console.DONE
    capsys.readouterr()
    assert main(["export", "fitted", "score.pt2"]) == console.DONE
    assert capsys.readouterr().out == "score.pt2\n"
    score = torch.export.load("score.pt2").module()
    images = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(score(images), load_detector("fitted").score(images))
    for words, said in (
        (["fitted", "score.txt"], "need a file that ends in .onnx or .pt2"),
        (["pixel_mean", "score.pt2"], "is not fitted"),
    ):
        assert main(["export", *words]) == console.FAILED
        assert said in capsys.readouterr().err
