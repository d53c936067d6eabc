"""`certify --sigma 0.5,1`: the sum over noise levels, from the command to its rows."""

from __future__ import annotations

import json
from pathlib import Path

from certify import console
from certify.cli import main
from diffad.cli import main as diffad
from diffad.results import read_run

FAST = ["--limit", "3", "--n", "50", "--batch_size", "50", "--radii", "0.05", "--no_baselines"]
SUM = ["--sigma", "1,0.5", *FAST]


def test_several_sigmas_certify_the_sum_of_their_percentiles(trained, capsys) -> None:
    assert main(["--detector", str(trained), *SUM]) == console.DONE
    out, err = capsys.readouterr()
    assert "diffusion (l2), reference, σ = 0.5 + 1  8 x 8" in out
    assert "sigma 0.5 + 1, n = 50" in err
    (folder,) = Path("runs").iterdir()
    assert "reference-0.5+1-3" in folder.name
    run = read_run(folder)
    (subject,) = run.subjects
    assert (subject.score_name, subject.sigma) == ("l2 sum_sigma=0.5,1", 1.0)
    (entry,) = run.manifest["commands"]
    assert (entry["config"]["sigma"], entry["config"]["sigmas"]) == (1.0, [0.5, 1.0])


def test_one_level_and_a_sum_never_stand_in_one_table(trained, capsys) -> None:
    base = ["--detector", str(trained), "--no_examples", "--output_dir", "run"]
    assert main([*base, *SUM]) == console.DONE
    capsys.readouterr()
    assert main([*base, "--sigma", "1", *FAST]) == console.FAILED
    assert "sigmas was [0.5, 1.0] and is now []" in capsys.readouterr().err


def test_the_plan_of_a_sum_counts_every_level(trained, capsys) -> None:
    def planned(sigma: str) -> dict:
        words = ["--detector", str(trained), "--sigma", sigma, *FAST, "--dry_run", "--json"]
        assert main(words) == console.DONE
        return json.loads(capsys.readouterr().out)

    one, both = planned("0.5"), planned("0.5,1")
    assert both["passes"] == 2 * one["passes"]
    # the smallest level is no stronger than by itself, and has half of alpha
    assert both["radii"][0]["least_n"] > one["radii"][0]["least_n"]


def test_verify_says_that_it_does_not_derive_a_sum(trained, capsys) -> None:
    assert main(["--detector", str(trained), "--no_examples", "--output_dir", "run", *SUM]) == console.DONE
    capsys.readouterr()
    assert main(["verify", "run", "--detector", str(trained)]) == console.FAILED
    out, err = capsys.readouterr()
    lines = [line.split()[0] for line in out.splitlines()]
    assert lines == ["ok", "ok", "ok", "not"]  # tables, images, levels, draws
    assert "is a sum over noise levels" in out
    assert "1 of 4 could not be made" in err


def test_an_attack_attacks_the_sum_that_is_certified(trained, capsys) -> None:
    base = ["--detector", str(trained), "--sigma", "0.5,1", "--limit", "2", "--n", "50", "--batch_size", "50"]
    assert (
        main([*base, "--radii", "0.1", "--no_baselines", "--no_examples", "--output_dir", "run"])
        == console.DONE
    )
    words = [
        *base,
        "--eps",
        "0.1",
        "--steps",
        "1",
        "--eot",
        "2",
        "--checks",
        "none",
        "--output_dir",
        "attacked",
    ]
    assert diffad(["attack", *words]) == console.DONE
    capsys.readouterr()
    assert read_run("attacked").subjects == read_run("run").subjects
    assert diffad(["compare", "attacked", "run", "--output_dir", "both"]) == console.DONE
    assert "certified <= attacked <= clean holds" in capsys.readouterr().out
