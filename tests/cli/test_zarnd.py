from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from certify import console
from certify.cli import main as certify
from diffad import load_detector
from diffad.backbones import Backbone, ResNet
from diffad.cli import main
from diffad.results import read_run


@pytest.fixture
def zarnd(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """A detector whose folder has been moved, on a backbone whose folder is gone."""
    arguments = {"width": 4, "blocks": [1, 1]}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = ResNet(width=4, blocks=(1, 1))
    Backbone(network, arch="resnet", arguments=arguments, resolution=8).save_pretrained("backbone")
    fit = ["fit", "--detector", "zarnd", "--backbone", "backbone", "--data", "digits", "--resolution", "8"]
    assert main([*fit, "--bank_size", "40", "--output_dir", "here"]) == console.DONE
    shutil.rmtree("backbone")
    Path("here").rename("there")
    capsys.readouterr()
    return "./there"


def test_it_is_certified_and_attacked_behind_a_purifier_and_compared(zarnd: str, trained: Path) -> None:
    way = ["--smoothing", "denoise", "--purifier", str(trained), "--sigma", "0.25"]
    where = ["--detector", zarnd, "--limit", "2", "--n", "50", "--batch_size", "50", *way]
    assert certify([*where, "--radii", "0.05", "--no_baselines", "--output_dir", "certified"]) == console.DONE
    attack = ["attack", *where, "--curve", "0.05", "--steps", "2", "--eot", "2", "--checks", "none"]
    assert main([*attack, "--output_dir", "attacked"]) == console.DONE
    assert main(["compare", "certified", "attacked", "--output_dir", "compared"]) == console.DONE
    run = read_run(Path("certified"))
    purifier = load_detector(str(trained)).fingerprint()
    assert run.manifest["commands"][0]["config"]["purifier_fingerprint"] == purifier
    for folder in ("certified", "attacked"):
        subjects = {one.subject for one in read_run(Path(folder)).conditions}
        assert {(one.detector, one.smoothing, one.sigma) for one in subjects} == {("zarnd", "denoise", 0.25)}


def test_it_is_certified_on_noisy_inputs(zarnd: str) -> None:
    where = ["--detector", zarnd, "--limit", "2", "--n", "50", "--batch_size", "50", "--sigma", "0.25"]
    assert certify([*where, "--radii", "0.05", "--no_baselines", "--output_dir", "certified"]) == console.DONE
    run = read_run(Path("certified"))
    assert {one.subject.smoothing for one in run.conditions} == {"input"}  # it has no constant
    assert run.manifest["commands"][0]["config"]["lipschitz"] == {"zarnd": 0.0}


def test_test_images_in_its_bank_are_named(zarnd: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "--detector", zarnd, "--data_seed", "1"]) == console.DONE
    assert "test images are among the normals that zarnd keeps (digits/8/" in capsys.readouterr().err
    assert main(["score", "--detector", zarnd]) == console.DONE
    assert "warning" not in capsys.readouterr().err
