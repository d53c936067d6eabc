"""Smoothed classifiers: the engine for scores gives the published radius, and both scripts run."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import norm
from statsmodels.stats.proportion import proportion_confint

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
    sys.modules.pop("run", None)


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


def test_the_smoke_preset_of_cohen_runs_and_resumes(modules, tmp_path, capsys) -> None:
    run = modules("run", "cohen2019")
    argv = ["--preset", "smoke", "--output", str(tmp_path)]
    assert run.main(argv) == 0
    (file,) = tmp_path.glob("sigma-*.json")
    first = file.read_bytes()
    assert run.main(argv) == 0
    assert file.read_bytes() == first
    found = json.loads(first)
    assert found["broken"] == 0
    assert found["manifest"]["commands"][0]["seeds"] == {"all": 0}
    assert "sigma 0.25" in capsys.readouterr().out


def test_a_certificate_above_an_attack_is_an_error(modules, tmp_path, capsys) -> None:
    run = modules("run", "cohen2019")
    argv = ["--preset", "smoke", "--output", str(tmp_path)]
    assert run.main(argv) == 0
    (file,) = tmp_path.glob("sigma-*.json")
    found = json.loads(file.read_text())
    file.write_text(json.dumps(found | {"attacked": {"0.25": -1.0}}))
    assert run.main(argv) == 1
    assert "certified above attacked at ['0.25']" in capsys.readouterr().err
