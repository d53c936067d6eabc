"""`diffad fit`: options of detectors that choose their own by default, and whose options they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffad import load_detector
from diffad.cli import main

DATA = ["--data", "digits", "--normal_class", "8", "--resolution", "8"]


def test_options_of_patch_nn_are_taken_and_the_others_stay_as_they_are(tmp_path: Path) -> None:
    words = ["--patch_size", "3", "--stride", "2", "--bank_size", "60", "--selection", "k_centre"]
    folder = tmp_path / "patch_nn"
    assert (
        main(["fit", "--detector", "patch_nn", *DATA, *words, "--remove_mean", "--output_dir", str(folder)])
        == 0
    )
    assert load_detector(folder).config() == {
        "patch_size": 3,
        "stride": 2,
        "bank_size": 60,
        "selection": "k_centre",
        "remove_mean": True,
        "n_components": None,
    }


def test_a_given_number_of_components_is_not_chosen(tmp_path: Path) -> None:
    assert (
        main(["fit", "--detector", "pca", *DATA, "--n_components", "7", "--output_dir", str(tmp_path)]) == 0
    )
    assert load_detector(tmp_path).config()["n_components"] == 7


@pytest.mark.parametrize(
    ("detector", "option", "owners"),
    [
        ("pixel_nn", ["--patch_size", "3"], "patch_nn"),
        ("pca", ["--remove_mean"], "patch_nn"),
        ("autoencoder", ["--nu", "0.1"], "deep_svdd"),
        ("pixel_nn", ["--nu", "0"], "deep_svdd"),
        ("pixel_nn", ["--k", "5"], "zarnd"),
        ("msp", ["--temperature", "2"], "energy"),
        ("energy", ["--ridge", "0.1"], "mahalanobis or relative_mahalanobis"),
        ("pca", ["--adversarial_eps", "8/255"], "autoencoder"),
        ("zarnd", ["--cobra_score", "sum"], "cobra"),
        ("pixel_nn", ["--generated", "50"], "generated_nn"),
    ],
)
def test_an_option_of_another_detector_is_refused(
    detector: str, option: list[str], owners: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "--detector", detector, *DATA, *option]) != 0
    assert f"{option[0]}: {detector} takes none; use --detector {owners}" in capsys.readouterr().err


def test_an_unknown_name_is_told_what_each_other_one_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--detector", "pixelnn", *DATA]) != 0
    (line,) = capsys.readouterr().err.splitlines()
    assert "got 'pixelnn', allowed are pixel_mean, pca" in line
    assert "cobra with --network, zarnd, msp" in line
    assert "purified" not in line
