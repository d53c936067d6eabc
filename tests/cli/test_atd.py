from __future__ import annotations

from pathlib import Path

import pytest
import torch

from certify import console
from certify.cli import main as certify
from diffad.atd.train import main as train
from diffad.backbones import Backbone, ResNet
from diffad.cli import main
from diffad.results import read_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A detector trained for three steps on digits of 8 x 8."""
    place = tmp_path_factory.mktemp("atd")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = ResNet(width=4, blocks=(1,), classes=0, in_channels=1)
    arguments = {"width": 4, "blocks": [1], "classes": 0, "in_channels": 1}
    Backbone(network, arch="resnet", arguments=arguments, resolution=8).save_pretrained(place / "backbone")
    words = ["--smoke", "--normal_class", "8", "--resolution", "8", "--backbone", str(place / "backbone")]
    kinds = ["--open_data", "transforms:jigsaw", "--validation_open_data", "transforms:cutout"]
    found = str(place / "trained")
    assert train([*words, *kinds, "--max_train_steps", "3", "--output_dir", found]) == console.DONE
    return found


def test_every_command_takes_a_trained_folder(folder: str, trained: Path, capsys) -> None:
    assert main(["score", "--detector", folder, "--limit", "3"]) == console.DONE
    plain = ["--smoothing", "plain", "--norm", "linf", "--steps", "2", "--checks", "none"]
    words = ["attack", "--detector", folder, "--limit", "3", *plain, "--output_dir", "plain"]
    assert main(words) == console.DONE
    assert "linf radius" in capsys.readouterr().out
    noise = ["--detector", folder, "--limit", "3", "--sigma", "0.25", "--n", "50", "--batch_size", "50"]
    for way in (["input"], ["denoise", "--purifier", str(trained)]):
        words = [*noise, "--smoothing", *way]
        runs = f"certified-{way[0]}", f"attacked-{way[0]}"
        exact = ["--no_baselines", "--radii", "0,0.05", "--output_dir", runs[0]]
        assert certify([*words, *exact]) == console.DONE
        assert {one.subject.smoothing for one in read_run(Path(runs[0])).conditions} == {way[0]}
        light = ["--eps", "0.05", "--steps", "1", "--eot", "2", "--checks", "none", "--output_dir", runs[1]]
        assert main(["attack", *words, *light]) == console.DONE
        assert main(["compare", *runs, "--output_dir", f"compared-{way[0]}"]) == console.DONE


def test_fit_says_how_atd_is_trained(capsys) -> None:
    assert main(["fit", "--detector", "atd"]) == console.FAILED
    assert "accelerate launch -m diffad.atd.train" in capsys.readouterr().err
