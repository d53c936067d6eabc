"""Smoothed classifiers: the engine for scores gives the published radius, and both scripts run."""

import importlib
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import norm
from statsmodels.stats.proportion import proportion_confint

from certify.checks import InputError
from diffad.baselines.pixel_mean import PixelMean

FOLDER = Path(__file__).parents[2] / "paper_repro"


@pytest.fixture
def modules(monkeypatch):
    """Import the modules beside a script, which are no package, and forget them again."""
    monkeypatch.syspath_prepend(str(FOLDER))

    def load(name: str, folder: str = ""):
        if folder:
            monkeypatch.syspath_prepend(str(FOLDER / folder))
        monkeypatch.delitem(sys.modules, name, raising=False)
        return importlib.import_module(name)

    yield load
    for name in ("run", "measures"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(("votes", "n"), [(100, 100), (90, 100), (51, 100), (50, 100), (999, 1000)])
def test_the_radius_is_that_of_cohen(modules, votes, n) -> None:
    classifiers = modules("common.classifiers")
    logits = np.zeros((1, n, 3))
    logits[0, :votes, 1], logits[0, votes:, 2] = 1.0, 1.0
    (found,) = classifiers.vote_radius(logits, [1], 0.5, 0.001)
    share = proportion_confint(votes, n, alpha=2 * 0.001, method="beta")[0]
    assert found == pytest.approx(max(0.5 * norm.ppf(share), 0.0), rel=1e-6)


def test_a_tie_is_no_vote(modules) -> None:
    classifiers = modules("common.classifiers")
    assert classifiers.vote_radius(np.zeros((1, 1000, 2)), [0], 0.5, 0.001) == [0.0]


def test_only_the_right_class_counts_and_radii_nest(modules) -> None:
    classifiers = modules("common.classifiers")
    found = classifiers.Certified(np.array([0, 1, 1, 2]), np.array([0.0, 0.3, 0.6, 0.6]))
    assert found.accuracy(torch.tensor([0, 1, 1, 0]), [0.0, 0.25, 0.5]) == [0.5, 0.5, 0.25]


def test_noise_draws_choose_the_class_that_they_do_not_certify(modules) -> None:
    classifiers = modules("common.classifiers")
    images = torch.tensor([0.2, 0.8])[:, None, None, None].expand(2, 1, 1, 1).contiguous()
    found = classifiers.certify_classifier(
        lambda noisy: torch.cat([0.5 - noisy.flatten(1), noisy.flatten(1) - 0.5], dim=1),
        images,
        sigma=0.25,
        n0=50,
        n=1000,
        alpha=0.001,
        seed=0,
    )
    assert found.predicted.tolist() == [0, 1]
    # the true radius of a half-space is the distance to it, .3
    assert np.all((found.radius > 0.2) & (found.radius < 0.3))


def smoke(modules, folder: Path, *flags: str) -> int:
    """Run the smoke preset of Cohen et al. into a folder."""
    run = modules("run", "cohen2019")
    modules("measures", "cohen2019")
    words = ["--preset", "smoke", "--runs", str(folder / "runs"), "--output", str(folder / "results")]
    return run.main([*words, *flags])


def test_the_smoke_preset_of_cohen_runs_and_is_not_run_again(modules, tmp_path, capsys) -> None:
    assert smoke(modules, tmp_path) == 0
    file = tmp_path / "results" / "levels" / "sigma-0.25.json"
    first = file.read_bytes()
    shutil.rmtree(tmp_path / "runs")
    assert smoke(modules, tmp_path) == 0
    assert file.read_bytes() == first
    assert not (tmp_path / "runs").exists()  # the results hold all of it
    found = json.loads(first)
    assert found["broken"] == 0
    assert found["manifest"]["commands"][0]["seeds"] == {"all": 0}
    captured = capsys.readouterr()
    assert "sigma 0.25" in captured.out
    assert "nothing to run" in captured.err


def test_a_certificate_above_an_attack_is_an_error(modules, tmp_path, capsys) -> None:
    assert smoke(modules, tmp_path) == 0
    file = tmp_path / "runs" / "smoke" / "levels" / "sigma-0.25.json"
    found = json.loads(file.read_text())
    file.write_text(json.dumps(found | {"attacked": {"0.25": -1.0}}))
    assert smoke(modules, tmp_path, "--report") == 1
    assert "certified above attacked at ['0.25']" in capsys.readouterr().err


def test_what_stands_behind_the_denoiser_waits_for_it(modules, tmp_path) -> None:
    run = modules("run", "carlini2022")
    plan = run.plan_of(run.parse(["--preset", "cpu", "--runs", str(tmp_path)]))
    needs = {chain.name: chain.needs for chain in plan.chains()}
    assert needs["denoised-0.25"] == ("denoiser",)
    assert needs["plain-0.25"] == needs["denoiser"] == ()
    assert len(needs) == 1 + 3 * 3


def test_no_other_detector_takes_the_place_of_the_denoiser(modules, tmp_path) -> None:
    measures = modules("measures", "carlini2022")
    normals = torch.rand((8, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    PixelMean().fit(normals).save_pretrained(tmp_path / "other")
    with pytest.raises(InputError, match="holds a pixel_mean, need a diffusion detector"):
        measures.behind(tmp_path / "other", lambda images: images, 0.25)


def test_each_radius_is_attacked_as_if_it_were_alone(modules) -> None:
    """The clean scores are shared, nothing else; the attack finds the nearer class, and no certified image falls."""
    classifiers = modules("common.classifiers")
    images = torch.tensor([0.1, 0.4, 0.55, 0.9])[:, None, None, None]
    labels = torch.tensor([0, 0, 1, 1])

    def logits(noisy: torch.Tensor) -> torch.Tensor:
        return torch.cat([0.5 - noisy.flatten(1), noisy.flatten(1) - 0.5], dim=1)

    certified = classifiers.certify_classifier(logits, images, sigma=0.2, n0=50, n=500, alpha=0.01, seed=0)
    spent = {"sigma": 0.2, "steps": 3, "eot": 4, "n": 300, "seed": 0}

    def attacked(*radii: float) -> dict[float, tuple[float, int]]:
        return classifiers.attacked_accuracy(logits, images, labels, certified, radii=radii, **spent)

    found = attacked(0.02, 0.2)
    assert found == {**attacked(0.02), **attacked(0.2)} == {0.02: (1.0, 0), 0.2: (0.5, 0)}


@pytest.mark.parametrize("paper", ["cohen2019", "carlini2022"])
def test_the_recorded_levels_are_those_of_the_preset(modules, tmp_path, paper) -> None:
    run, recorded = modules("run", paper), modules("common.recorded")
    plan = run.plan_of(run.parse(["--preset", "cpu", "--runs", str(tmp_path)]))
    folder = FOLDER / paper / "results" / "cpu"
    assert len(recorded.recorded(folder, plan.chains())) == len(plan.chains())
