from __future__ import annotations

import json
from pathlib import Path

import pytest

from certify import console
from certify.cli import main as certify
from diffad import load_detector
from diffad.cli import main
from diffad.cobra.train import main as train
from diffad.results import read_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A detector trained for three steps on digits of 8 x 8."""
    found = str(tmp_path_factory.mktemp("cobra") / "trained")
    words = ["--smoke", "--normal_class", "8", "--resolution", "8", "--crafting", "no_filter"]
    fast = ["--max_train_steps", "3", "--optimizer", "adamw", "--learning_rate", "1e-3"]
    assert train([*words, *fast, "--output_dir", found]) == console.DONE
    return found


def refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(argv) == console.FAILED
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()[-1]


def test_every_command_takes_a_trained_folder(folder: str, trained: Path, capsys) -> None:
    assert main(["score", "--detector", folder, "--limit", "3"]) == console.DONE
    plain = ["--smoothing", "plain", "--norm", "linf", "--steps", "2", "--checks", "none"]
    assert (
        main(["attack", "--detector", folder, "--limit", "3", *plain, "--output_dir", "plain"])
        == console.DONE
    )
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
    assert main(["report", "certified-input"]) == console.DONE


def test_another_score_is_fitted_without_training(folder: str, capsys) -> None:
    fit = ["fit", "--detector", "cobra", "--network", folder]
    words = ["--cobra_score", "sum", "--embedding", "features", "--output_dir", "sum"]
    assert main([*fit, *words]) == console.DONE
    assert capsys.readouterr().out == "sum\n"
    detector, before = load_detector("sum"), load_detector(folder)
    assert detector.config() == {"score": "sum", "embedding": "features"}
    assert detector.backbone.fingerprint() == before.backbone.fingerprint()
    assert detector.image_shape == (1, 8, 8)
    assert detector.threshold_ is not None
    assert "score: got 'max', allowed are cosine" in refused([*fit, "--cobra_score", "max"], capsys)


def test_a_bank_of_another_protocol_is_that_of_its_data(folder: str, capsys) -> None:
    words = ["--data", "digits", "--protocol", "ood", "--normal_class", "7,8", "--outliers", "rest"]
    argv = ["fit", "--detector", "cobra", "--network", folder, *words, "--output_dir", "ood"]
    assert main(argv) == console.DONE
    data = json.loads(Path("ood/manifest.json").read_text())["data"]
    assert (data["name"], data["options"]["protocol"]) == ("digits:7,8-vs-rest", "ood")
    assert data["resolution"] == 8


def test_fit_says_what_cobra_needs(trained: Path, capsys) -> None:
    assert "accelerate launch -m diffad.cobra.train" in refused(["fit", "--detector", "cobra"], capsys)
    other = ["fit", "--detector", "cobra", "--network", str(trained)]
    assert "holds a diffusion, need a trained cobra" in refused(other, capsys)
    assert "pca takes none; use --detector cobra" in refused(
        ["fit", "--detector", "pca", "--network", "x"], capsys
    )
