from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from certify import console
from certify.cli import main as certify
from diffad import load_detector
from diffad.backbones import Backbone, ResNet, load_backbone
from diffad.cli import main
from diffad.results import read_run


def saved(folder: str, seed: int, scale: float = 1.0) -> str:
    """A random network; `scale` multiplies the weights of its first convolution, which batch norm does not undo."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = ResNet(width=4, blocks=(1, 1))
    with torch.no_grad():
        network.conv1.weight.mul_(scale)
    Backbone(network, arch="resnet", arguments={"width": 4, "blocks": [1, 1]}, resolution=8).save_pretrained(
        folder
    )
    return folder


def refused(words: list[str], capsys: pytest.CaptureFixture[str], code: int = console.FAILED) -> str:
    assert main(["backbones", *words]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()[-1]


def test_usage(capsys) -> None:
    assert main(["backbones", "--help"]) == console.DONE
    listed = capsys.readouterr().out
    assert all(
        f"  {action} " in listed for action in ("convert FILE OUT", "linear OUT", "measure ROBUST STANDARD")
    )
    assert "got 'list'; allowed are convert, linear, measure" in refused(["list"], capsys, console.USAGE)
    assert "got nothing" in refused([], capsys, console.USAGE)
    assert main(["backbones", "convert", "--help"]) == console.DONE
    assert "--trust" in capsys.readouterr().out
    assert main(["backbones", "convert", "a", "b", "--nothing"]) == console.USAGE


def test_components_of_another_set_certify_zarnd_without_noise(capsys) -> None:
    """The classes under test take no part in the components."""
    words = ["--data", "digits", "--exclude_classes", "8", "3", "--dim", "6", "--resolution", "8"]
    assert main(["backbones", "linear", "linear", *words, "--in_channels", "1"]) == console.DONE
    captured = capsys.readouterr()
    assert captured.out == "linear\n"
    facts = load_backbone("linear").facts
    assert (facts["data"], facts["excluded"]) == ("digits", ["8", "3"])
    assert f"{facts['explained_variance']:.3f} of their variance" in captured.err
    fit = ["fit", "--detector", "zarnd", "--backbone", "linear", "--data", "digits", "--resolution", "8"]
    assert main([*fit, "--output_dir", "runs/zarnd", "--k", "1"]) == console.DONE
    assert load_detector("runs/zarnd").lipschitz == 1.0
    capsys.readouterr()
    options = ["--detector", "runs/zarnd", "--limit", "8", "--no_baselines", "--radii", "0,0.1,0.5"]
    assert certify([*options, "--output_dir", "certified"]) == console.DONE
    run = read_run(Path("certified"))
    assert {one.subject.smoothing for one in run.conditions} == {"none"}
    attack = ["attack", "--detector", "runs/zarnd", "--limit", "8", "--curve", "0.1,0.5", "--steps", "5"]
    assert main([*attack, "--output_dir", "attacked"]) == console.DONE
    assert main(["compare", "certified", "attacked", "--output_dir", "compared"]) == console.DONE
    assert main(["backbones", "linear", "random", "--kind", "random", "--in_channels", "1"]) == console.DONE
    assert load_backbone("random").lipschitz((1, 32, 32)) == 1.0


def test_a_linear_backbone_needs_images_for_components_alone(capsys) -> None:
    assert "pca needs the images of another set" in refused(["linear", "out"], capsys)
    assert "random takes none" in refused(["linear", "out", "--kind", "random", "--data", "digits"], capsys)
    few = ["linear", "out", "--data", "digits", "--images", "30", "--resolution", "8", "--in_channels", "1"]
    assert "for dim 64; need square images, more than dim" in refused(few, capsys)


def test_a_robust_claim_is_measured(capsys) -> None:
    one, other = saved("one", 0), saved("other", 1)
    words = ["measure", one, other, "--resolution", "8", "--images", "6", "--steps", "3", "--json"]
    assert main(["backbones", *words]) == console.DONE
    found = json.loads(capsys.readouterr().out)
    moved = found["displacement"]
    assert found["ratio"] == pytest.approx(moved["standard"] / moved["robust"])
    assert found["robust"] is (found["ratio"] > 3.0)
    assert (found["images"], found["eps"]) == (12, "4/255")
    assert main(["backbones", "measure", other, one, *words[3:-1]]) == console.DONE
    text = capsys.readouterr().out
    assert f"{1 / found['ratio']:8.4f}  times as far" in text
    assert "not robust by this measure (more than 3)" in text
    assert "moved no feature" in refused([*words, "--eps", "0"], capsys)
    assert "holds no config.json" in refused(["measure", "one", "nowhere"], capsys)
