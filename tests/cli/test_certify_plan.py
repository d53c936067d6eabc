from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from scipy.stats import norm

from certify import console
from certify.bounds import min_samples
from certify.cli import main
from certify.pool import DrawPool
from diffad import sources

TINY = ["--limit", "4", "--n", "120", "--batch_size", "50", "--no_baselines"]


def planned(argv: list[str], capsys) -> dict:
    """The JSON object of a dry run."""
    assert main([*argv, "--dry_run", "--json"]) == console.DONE
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("extra", [[], ["--images_per_batch", "2", "--batch_size", "200"]])
def test_it_counts_the_passes_that_the_run_then_spends(extra, trained, capsys, monkeypatch) -> None:
    argv = ["--detector", str(trained), "--radii", "0.1", *TINY, *extra]
    plan = planned(argv, capsys)
    assert {row["detector"] for row in plan["work"]} == {"diffusion"}
    assert plan["passes"] == sum(row["passes"] for row in plan["work"])
    assert plan["seconds"] == pytest.approx(sum(row["seconds"] for row in plan["work"]))
    assert plan["seconds"] > 0
    spent = {}
    real = DrawPool.all_draws

    def counted(pool, n):
        scores = real(pool, n)
        spent[pool.purpose] = (len(pool.images), n, pool.passes)
        return scores

    monkeypatch.setattr(DrawPool, "all_draws", counted)
    assert main([*argv, "--no_examples"]) == console.DONE
    parts = {"calibrate": "calibration", "certify": "test"}
    rows = {row["part"]: (row["images"], row["draws"], row["passes"]) for row in plan["work"]}
    assert {parts[purpose]: found for purpose, found in spent.items()} == rows


def test_it_draws_and_writes_nothing(trained, elsewhere, capsys, monkeypatch) -> None:
    def refuse(*args, **options):
        raise AssertionError("drew noise for a certificate")

    monkeypatch.setattr(DrawPool, "extend", refuse)
    assert main(["--detector", str(trained), "--dry-run", "--limit", "2", "--n", "50"]) == console.DONE
    out = capsys.readouterr().out
    assert "nothing has been drawn" in out
    assert "closed_form, test" in out  # the one network-free row that needs noise
    assert "pixel_nn" not in out
    assert not list(Path().iterdir())


def test_the_least_n_is_the_one_that_makes_a_radius_finite(trained, capsys) -> None:
    base = ["--detector", str(trained), "--sigma", "0.25", "--radii", "0,0.25,0.5,9", *TINY]
    plan = planned(base, capsys)
    assert plan["level"] == 0.001 / 8
    by_radius = {row["radius"]: row for row in plan["radii"]}
    assert by_radius[0.25]["least_n"] == min_samples(0.25, 0.25, plan["level"])
    assert by_radius[0.25]["least_n"] == math.ceil(math.log(0.001 / 8) / math.log(norm.cdf(1)))
    assert [row["finite"] for row in plan["radii"]] == ["both ends", "both ends", "infinite", "infinite"]
    assert by_radius[9.0]["least_n"] is None
    assert by_radius[0.5]["linf"] == pytest.approx(0.5 / 8)
    least = by_radius[0.5]["least_n"]
    for n, finite in ((least, "both ends"), (least - 1, "infinite")):
        again = planned([*base, "--n", str(n)], capsys)
        assert [row["finite"] for row in again["radii"] if row["radius"] == 0.5] == [finite]


def test_another_percentile_frees_one_end_first(trained, capsys) -> None:
    base = ["--detector", str(trained), "--sigma", "0.5", "--radii", "0.5", "--percentile", "0.7", *TINY]
    (row,) = planned(base, capsys)["radii"]
    assert row["finite"] == "lower end"  # p_l is further from 0 than p_u from 1
    assert planned([*base, "--n", str(row["least_n"])], capsys)["radii"][0]["finite"] == "both ends"
    assert planned([*base, "--n", str(row["least_n"] - 1)], capsys)["radii"][0]["finite"] == "lower end"


def test_a_score_without_noise_costs_one_pass_an_image(capsys) -> None:
    argv = ["--detector", "pixel_nn", "--resolution", "8", "--radii", "0.1", *TINY]
    plan = planned(argv, capsys)
    assert {row["draws"] for row in plan["work"]} == {0}
    assert plan["passes"] == sum(row["images"] for row in plan["work"])
    assert plan["radii"][0]["finite"] == "both ends"


def test_fractions_are_radii(capsys) -> None:
    argv = ["--detector", "pixel_nn", "--resolution", "8", "--radii", "0,8/255", *TINY]
    assert [row["radius"] for row in planned(argv, capsys)["radii"]] == [0.0, 8 / 255]


def test_an_untrained_built_in_detector_is_not_trained_for_a_plan(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(sources, "user_cache_path", lambda name: tmp_path / "cache" / name)
    assert main(["--sigma", "0.25", "--dry_run"]) == console.FAILED
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "not trained yet" in captured.err


def test_an_adaptive_plan_says_at_most(trained, capsys) -> None:
    base = ["--detector", str(trained), "--sigma", "0.5", "--radii", "0.1,0.5", *TINY]
    assert main([*base, "--adaptive", "--dry_run"]) == console.DONE
    assert "n = at most 120" in capsys.readouterr().out
