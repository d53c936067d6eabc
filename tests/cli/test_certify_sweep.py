from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from PIL import Image

from certify import console
from certify.cli import main
from diffad import sweep as module
from diffad.commands.certify_sweep import shown, table_text
from diffad.config import read_config
from diffad.data import load_data
from diffad.results import read_run
from diffad.subject import smoothed_name
from diffad.sweep import Choice

NN = ["--detector", "pixel_nn", "--resolution", "8"]
SMALL = ["--images", "8", "--draws", "50", "--batch_size", "50", "--radii", "0.1,8/255"]


def swept(argv: list[str], capsys) -> dict:
    assert main(["sweep", *argv, "--json"]) == console.DONE
    return json.loads(capsys.readouterr().out)


def failed(argv: list[str], capsys) -> str:
    assert main(["sweep", *argv]) == console.FAILED
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()[-1]


def test_every_way_is_tried_on_one_budget_and_the_best_comes_first(trained, capsys, monkeypatch) -> None:
    spent = []
    real = module.sample_scores

    def counted(base, images, indices, **options):
        spent.append((len(images), options["n"], options["purpose"]))
        return real(base, images, indices, **options)

    monkeypatch.setattr(module, "sample_scores", counted)
    monkeypatch.setattr("diffad.diffusion.select.sample_scores", counted)
    noise = ["--sigmas", "0.5", "--inner_sigmas", "0.25,0.5", "--percentiles", "0.3,0.5"]
    found = swept(["--detector", str(trained), *SMALL, *noise, "--scores", "l2,patch_max"], capsys)
    assert set(spent) == {(16, 50, "select")}
    assert found["budget"] == {"images": 16, "draws": 50, "passes": sum(16 * 50 for _ in spent)}
    choices = found["choices"]
    assert {choice["smoothing"] for choice in choices} == {"reference", "sure", "denoise", "input"}
    # this network has learnt nothing, so none certifies anything and the clean AUROC decides (see diffad.ranking)
    assert max(max(choice["certified"]) for choice in choices) <= 0.5
    clean = [choice["clean"] for choice in choices]
    assert clean == sorted(clean, reverse=True)
    # 2 scores x 2 percentiles for reference, x 2 inner sigmas for input and denoise; sure has one score
    count = {
        way: sum(choice["smoothing"] == way for choice in choices) for way in ("reference", "input", "sure")
    }
    assert count == {"reference": 4, "input": 8, "sure": 2}
    assert {choice["patch_size"] for choice in choices if choice["score"] == "patch_max"} == {3}
    assert {choice["patch_size"] for choice in choices if choice["score"] == "l2"} == {None}


def test_the_winner_is_a_config_that_certify_takes(trained, capsys) -> None:
    assert (
        main(["sweep", "--detector", str(trained), *SMALL, "--ways", "input", "--output_dir", "out"])
        == console.DONE
    )
    out, err = capsys.readouterr()
    assert out.splitlines()[0].split() == [
        *("way", "sigma", "inner", "score", "window", "percentile", "mean", "r=0.1", "r=0.0313725", "clean")
    ]  # fmt: skip
    assert "next: certify --config out/winner.yaml" in err
    record = json.loads(Path("out/sweep.json").read_text())
    best = record["choices"][0]
    winner = yaml.safe_load(Path("out/winner.yaml").read_text())
    for key in ("smoothing", "sigma", "inner_sigma", "score", "percentile"):
        assert winner[key] == best[key]
    assert winner["detector"] == str(trained)
    assert str(8 / 255) in winner["radii"]
    with Image.open("out/sweep.png") as figure:
        assert figure.width > 500
    (entry,) = json.loads(Path("out/manifest.json").read_text())["commands"]
    assert entry["command"] == "certify sweep"
    fast = ["--limit", "2", "--n", "50", "--batch_size", "50", "--no_baselines", "--no_examples"]
    assert main(["--config", "out/winner.yaml", *fast, "--output_dir", "run"]) == console.DONE
    (subject,) = read_run("run").main
    name = smoothed_name(best["score"], best["percentile"], grid=False)
    assert (subject.smoothing, subject.sigma, subject.score_name) == ("input", best["sigma"], name)
    (entry,) = read_run("run").manifest["commands"]
    assert entry["config"]["percentile"] == best["percentile"]
    assert entry["config"]["arguments"]["sigma"] == best["inner_sigma"]


def test_a_lipschitz_score_is_tried_without_noise_and_under_plain_noise(capsys) -> None:
    found = swept([*NN, *SMALL, "--sigmas", "0.25,0.5"], capsys)
    ways = [choice["smoothing"] for choice in found["choices"]]
    assert ways.count("none") == 1
    assert ways.count("input") == 2 * 3
    best = found["choices"][0]
    assert (best["smoothing"], best["sigma"], best["score"]) == ("none", None, "")
    assert len(best["curve"]) == 9
    assert best["curve"][0] == best["clean"]
    winner = yaml.safe_load(Path(found["folder"], "winner.yaml").read_text())
    assert "sigma" not in winner
    assert winner["smoothing"] == "none"


def choice(way: str, value: float) -> Choice:
    return Choice(way, 0.5, None, "", None, 0.5, value, (value,), (value,))


def test_every_way_has_a_line_and_what_would_be_certified_is_floored() -> None:
    choices = [choice("reference", 0.9 - place / 1000) for place in range(30)]
    choices += [choice("denoise", 0.5), choice("denoise", 0.4), choice("input", 0.39999)]
    ways = [one.smoothing for one in shown(choices)]
    assert ways == ["reference"] * 20 + ["denoise", "input"]
    assert table_text(choices, [0.1]).splitlines()[-1].split()[-3:] == ["0.399", "0.399", "0.400"]


def test_test_images_play_no_part(capsys, monkeypatch) -> None:
    import torch

    def changed(*args, **options):
        split = load_data(*args, **options)
        object.__setattr__(split.test, "images", torch.rand_like(split.test.images))
        return split

    first = swept([*NN, *SMALL, "--output_dir", "one"], capsys)
    monkeypatch.setattr("diffad.sources.load_data", changed)
    second = swept([*NN, *SMALL, "--output_dir", "two"], capsys)
    assert first["choices"] == second["choices"]


def test_the_winner_file_keeps_the_options_of_the_data(capsys) -> None:
    argv = ["--detector", "pixel_mean", "--data", "digits", "--normal_class", "3", "--data_seed", "4"]
    swept([*argv, "--resolution", "8", *SMALL, "--ways", "none", "--output_dir", "out"], capsys)
    from diffad.commands.certify_options import CertifyConfig

    config = read_config(CertifyConfig, "out/winner.yaml")
    assert (config.detector, config.data, config.normal_class) == ("pixel_mean", "digits", "3")
    assert (config.data_seed, config.resolution, config.smoothing) == (4, 8, "none")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--detector", "pixel_n"], "neither the folder of a fitted detector nor one of"),
        ([*NN, "--ways", "reference"], "pixel_nn has no 'reference'; it has none, input"),
        ([*NN, "--ways", "inptu"], "--ways: got 'inptu', allowed are"),
        ([*NN, "--ways", ","], "need at least one of none, input"),
        ([*NN, "--percentiles", "0.5,1"], "--percentiles: got 1.0"),
        ([*NN, "--percentiles", "x"], "--percentiles"),
        ([*NN, "--sigmas", "0,0.5"], "--sigmas: got '0,0.5', need numbers above 0"),
        ([*NN, "--radii", "-1"], "none below 0"),
        ([*NN, "--curve", "abc"], "--curve"),
        ([*NN, "--alpha", "2"], "--alpha: got 2.0"),
        ([*NN, "--draws", "0"], "--draws: got 0"),
        ([*NN, "--images", "0"], "--images: got 0"),
        ([*NN, "--device", "nowhere"], "device: 'nowhere'"),
        (["--detector", "closed_form", "--resolution", "8", "--batch_size", "64"], "multiple of 50"),
    ],
)
def test_each_mistake_says_one_clear_thing(argv, message, capsys) -> None:
    assert message in failed(argv, capsys)


def test_scores_that_a_way_cannot_certify_are_refused(trained, capsys) -> None:
    argv = ["--detector", str(trained), *SMALL, "--ways", "reference", "--scores", "paper"]
    assert "none of paper can be certified by reference" in failed(argv, capsys)
    assert "--scores: got 'l3'" in failed(["--detector", str(trained), *SMALL, "--scores", "l3"], capsys)


def test_a_certificate_is_not_written_over(capsys) -> None:
    fast = ["--limit", "2", "--no_baselines", "--no_examples", "--output_dir", "run"]
    assert main([*NN, *fast]) == console.DONE
    capsys.readouterr()
    assert "holds a run" in failed([*NN, *SMALL, "--output_dir", "run"], capsys)


def test_usage(capsys) -> None:
    assert main(["sweep", "--help"]) == console.DONE
    captured = capsys.readouterr()
    assert "usage: certify sweep" in captured.out
    assert "--percentiles" in captured.out
    assert main(["sweep", "--rubbish", "1"]) == console.USAGE
    assert main(["--help"]) == console.DONE
    listed = capsys.readouterr().out
    assert all(f"certify {name}" in listed for name in ("predict", "verify", "sweep"))
