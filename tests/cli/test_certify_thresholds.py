"""`certify --threshold conformal`: one fixed threshold, the rates at it, and both of them checked by `verify`."""

from __future__ import annotations

import json

import pytest

from certify import console
from certify.cli import main
from diffad.results import read_run

FAST = ["--limit", "3", "--n", "50", "--batch_size", "50", "--no_examples", "--no_baselines"]
CONFORMAL = ["--threshold", "conformal", "--threshold_radius", "8/255", "--radii", "8/255"]


def test_the_table_names_the_rule_and_verify_derives_the_threshold(trained, capsys) -> None:
    base = ["--detector", str(trained), "--output_dir", "run", *FAST]
    assert main([*base, *CONFORMAL]) == console.DONE
    out = capsys.readouterr().out
    assert (
        "conformal: further normals are flagged at a rate of at most 0.1 + 0.001 under L2 attacks up to 0.0313725, "
        "on average over calibration sets, by the true score" in out
    )
    assert "TPR: at least" in out
    (entry,) = read_run("run").manifest["commands"]
    assert entry["config"]["threshold_radius"] == 8 / 255
    assert main(["verify", "run", "--detector", str(trained), "--json"]) == console.DONE
    checks = json.loads(capsys.readouterr().out)["checks"]
    assert [c["status"] for c in checks if c["name"].startswith("threshold")] == ["ok"]
    assert main([*base, "--radii", "8/255"]) == console.FAILED
    assert "threshold was 'conformal' and is now 'quantile'" in capsys.readouterr().err


def test_a_lipschitz_score_has_one_too(capsys) -> None:
    words = ["--detector", "pixel_nn", "--resolution", "8", "--output_dir", "run", *FAST]
    assert main([*words, *CONFORMAL, "--json"]) == console.DONE
    rows = json.loads(capsys.readouterr().out)["auroc"]
    assert {row["threshold_rule"].partition(":")[0] for row in rows} == {"conformal"}
    assert main(["verify", "run"]) == console.DONE
    assert "ok  threshold of pixel_nn" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--threshold", "conformal"], "goes with --threshold_radius"),
        (["--threshold_radius", "0.1"], "goes with --threshold_radius"),
        (["--threshold", "conformal", "--threshold_radius", "0.1,0.2"], "need one radius"),
        (["--threshold", "conformal", "--threshold_radius", "x"], "--threshold_radius: got 'x'"),
        (["--threshold", "conformal", "--threshold_radius", "9"], "have no finite upper bound at L2 9"),
    ],
)
def test_each_mistake_says_one_clear_thing(words, message, trained, capsys) -> None:
    assert main(["--detector", str(trained), *FAST, *words]) == console.FAILED
    assert message in capsys.readouterr().err.splitlines()[-1]
