"""`diffad attack`: methods, checks, what is kept, and the sandwich with a certificate."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from certify import console
from certify.cli import main as certify
from certify.types import ScoreBounds
from diffad.cli import main
from diffad.commands.attack import without_known_clean
from diffad.conditions import Subject, TestedImages, certified_conditions, clean_condition
from diffad.results import read_run, write_run

DIGITS = [
    "--detector",
    "pixel_nn",
    "--data",
    "digits",
    "--normal_class",
    "8",
    "--resolution",
    "8",
    "--limit",
    "4",
]
QUICK = [*DIGITS, "--curve", "0.1,0.25", "--steps", "3", "--checks", "none", "--output_dir", "attacked"]


def records(folder: str = "attacked") -> list[dict]:
    manifest = json.loads((Path(folder) / "manifest.json").read_text())
    return [record for entry in manifest["commands"] for record in entry.get("attacks", [])]


def test_methods_stand_side_by_side_and_the_ensemble_is_no_weaker(capsys) -> None:
    for method in ("pgd", "square", "ensemble"):
        assert main(["attack", *QUICK, "--method", method, "--json", "--side", "both"]) == console.DONE
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["auroc"]
    found = {row["method"]: row["auroc"] for row in rows if row["radius"] == 0.25}
    assert set(found) == {"pgd", "square", "ensemble"}
    assert found["ensemble"] <= min(found.values())
    assert {record["method"] for record in records()} == {"pgd", "square", "ensemble"}
    assert set(records()[-1]["members"]) >= {"apgd", "pgd", "square"}


def test_a_repeat_searches_nothing_and_other_options_search_anew(capsys, monkeypatch) -> None:
    assert main(["attack", *QUICK]) == console.DONE
    before = Path("attacked/images.parquet").read_bytes()
    kept = set(Path("attacked/draws/attack").iterdir())
    with monkeypatch.context() as patched:
        patched.setattr("diffad.attacks.job.Job._batch", None)
        assert main(["attack", *QUICK]) == console.DONE
    assert Path("attacked/images.parquet").read_bytes() == before
    assert main(["attack", *QUICK, "--seed", "1", "--restarts", "2"]) == console.DONE
    assert len(set(Path("attacked/draws/attack").iterdir()) - kept) == 2


def test_checks_run_with_every_attack_and_stand_in_the_manifest() -> None:
    options = ["--eps", "0.25", "--steps", "10", "--output_dir", "attacked"]
    assert main(["attack", *DIGITS, *options]) == console.DONE
    (record,) = records()
    assert {"eps_zero", "floor", "black_boxes"} <= {check["name"] for check in record["checks"]}
    assert record["failed_checks"] == []
    assert main(["attack", *DIGITS, *options, "--checks", "none"]) == console.DONE
    first, again = records()
    assert first == record
    assert (again["checks"], again["failed_checks"]) == ([], None)


def test_fresh_draws_are_another_score_than_the_stored_ones(capsys) -> None:
    argv = ["attack", "--detector", "closed_form", "--data", "digits", "--resolution", "8", "--limit", "3"]
    argv += [
        "--smoothing",
        "plain",
        "--steps",
        "2",
        "--eot",
        "2",
        "--checks",
        "none",
        "--output_dir",
        "fresh",
    ]
    assert main(argv) == console.DONE
    assert main([*argv, "--fresh_draws", "4"]) == console.DONE
    names = {condition.subject.score_name: condition.n for condition in read_run("fresh").conditions}
    assert names == {"": 0, "fresh_draws=4": 4}
    capsys.readouterr()
    assert main([*argv, "--smoothing", "reference", "--sigma", "1", "--fresh_draws", "4"]) == console.FAILED
    assert "--fresh_draws: goes with --smoothing plain" in capsys.readouterr().err
    assert main(["attack", *QUICK, "--smoothing", "plain", "--fresh_draws", "4"]) == console.FAILED
    assert "is not random" in capsys.readouterr().err


def test_transfer_crafts_on_other_detectors() -> None:
    options = ["--method", "transfer", "--sources", "pixel_mean,pca"]
    assert main(["attack", *QUICK, *options]) == console.DONE
    entry = json.loads(Path("attacked/manifest.json").read_text())["commands"][0]
    assert set(entry["config"]["source_detectors"]) == {"pixel_mean", "pca"}
    assert {c.method for c in read_run("attacked").conditions} == {"", "transfer"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--method", "pdg"], "--method: got 'pdg', allowed are pgd"),
        (["--method", "transfer"], "--sources: none given"),
        (["--sources", "pca"], "--sources: got pca, --method pgd"),
        (["--method", "pgd-100"], "preset"),
        (["--objective", "nothing"], "nothing"),
        (["--norm", "linf", "--curve", "0.1,8"], "8-bit units"),
    ],
)
def test_each_mistake_says_one_clear_thing(words, message, capsys) -> None:
    assert main(["attack", *QUICK, *words]) == console.FAILED
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert message in line


def test_an_attack_beyond_its_certificate_fails_the_comparison(capsys) -> None:
    """A real certificate, a real attack, and then evidence that was tampered with."""
    noise = ["--smoothing", "input", "--sigma", "0.25", "--n", "100", "--batch_size", "50"]
    assert (
        certify([*DIGITS, *noise, "--radii", "0.1", "--no_baselines", "--output_dir", "certified"])
        == console.DONE
    )
    options = ["--eps", "0.1", "--steps", "2", "--eot", "2", "--checks", "none", "--output_dir", "attacked"]
    assert main(["attack", *DIGITS, *noise, *options]) == console.DONE
    capsys.readouterr()
    compare = ["compare", "certified", "attacked", "--json", "--output_dir", "compared"]
    assert main(compare) == console.DONE
    assert json.loads(capsys.readouterr().out)["sandwich"] == {"judged": 8, "unjudged": 0, "violations": 0}
    (path,) = Path("attacked/attacked").iterdir()
    with safe_open(path, framework="pt") as file:
        about = file.metadata()
    kept = load_file(path)
    kept["draws"][2] += 5.0
    save_file(kept, path, metadata=about)
    assert main(compare) == console.FAILED
    assert "1 of 8 attacked images left their certified interval" in capsys.readouterr().err
    (record,) = json.loads(Path("compared/violations/violations.json").read_text())
    assert record["image_index"] == 2
    assert Path("compared/violations/000.png").is_file()


NOISY = ["--smoothing", "input", "--sigma", "0.25", "--n", "50", "--batch_size", "50"]
WEAK = ["--eps", "0.1", "--steps", "1", "--eot", "1", "--checks", "none", "--output_dir", "attacked"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--percentile", "0.9"], "percentile was 0.5 and is now 0.9"),
        (["--seed", "1"], "seed was 0 and is now 1"),
        (["--n", "60"], "n was 50 and is now 60"),
    ],
)
def test_two_smoothed_scores_never_share_a_table(words, message, capsys) -> None:
    assert main(["attack", *DIGITS, *NOISY, *WEAK]) == console.DONE
    before = Path("attacked/images.parquet").read_bytes()
    capsys.readouterr()
    assert main(["attack", *DIGITS, *NOISY, *WEAK, *words]) == console.FAILED
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert message in line
    assert "use another --output_dir" in line
    assert Path("attacked/images.parquet").read_bytes() == before
    assert main(["attack", *DIGITS, *NOISY, *WEAK, "--method", "square", "--steps", "2"]) == console.DONE
    assert {c.method for c in read_run("attacked").conditions} == {"", "pgd", "square"}


def test_beside_a_certificate_n_and_seed_are_free_and_its_percentile_is_not(capsys) -> None:
    options = ["--radii", "0.1", "--no_baselines", "--output_dir", "attacked"]
    assert certify([*DIGITS, *NOISY, *options]) == console.DONE
    (clean,) = [c for c in read_run("attacked").conditions if c.condition == "clean"]
    capsys.readouterr()
    assert main(["attack", *DIGITS, *NOISY, *WEAK, "--percentile", "0.9"]) == console.FAILED
    assert "percentile was 0.5 and is now 0.9" in capsys.readouterr().err
    assert main(["attack", *DIGITS, *NOISY, *WEAK, "--seed", "1"]) == console.DONE
    (kept,) = [c for c in read_run("attacked").conditions if c.condition == "clean"]
    assert (kept.seed, kept.bounds.lower.tolist()) == (0, clean.bounds.lower.tolist())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "digits", "--normal_class", "7"], "holds results of digits:8 with fingerprint"),
        (
            ["--data", "digits", "--normal_class", "8", "--data_seed", "1"],
            "holds results of digits:8 with fingerprint",
        ),
        (
            ["--data", "digits", "--normal_class", "8", "--fit_sigma", "0.1"],
            "holds results of another pixel_nn",
        ),
    ],
)
@pytest.mark.parametrize(
    "command", [["attack", "--eps", "0.1", "--checks", "none"], ["certify", "--no_examples"]]
)
def test_what_a_folder_cannot_take_is_refused_before_anything_is_computed(
    command, words, message, capsys
) -> None:
    assert main(["attack", *QUICK]) == console.DONE
    before = sorted(Path("attacked").rglob("*"))
    capsys.readouterr()
    run, options = (main, command) if command[0] == "attack" else (certify, command[1:])
    shared = ["--detector", "pixel_nn", "--resolution", "8", "--limit", "4", "--output_dir", "attacked"]
    assert run([*options, *shared, *words]) == console.FAILED
    assert message in capsys.readouterr().err
    assert sorted(Path("attacked").rglob("*")) == before


def test_clean_rows_of_an_earlier_attack_are_replaced(tmp_path) -> None:
    """Those of a certificate stay; nothing else vouches that the earlier ones are of the score attacked now."""
    images = TestedImages(np.arange(2), ("a", "b"), np.array([0, 1]), ("good", "hole"))
    subject = Subject("digits:8", 8, "pixel_nn", "input", "", 0.25)
    clean = clean_condition(subject, images, np.array([1.0, 2.0]), n=50, seed=0)
    later = replace(clean, bounds=ScoreBounds.exact(np.array([3.0, 4.0])))
    bounds = ScoreBounds(np.zeros((1, 2)), np.full((1, 2), 9.0))
    rest = {"alpha": 0.001, "alpha_kind": "total", "seed": 0}
    data = {"name": "digits:8", "fingerprint": "ab", "resolution": 8}
    manifest = {"format": 1, "data": data, "detectors": {}, "commands": []}
    for n, written in ((50, []), (60, [later])):
        own = certified_conditions(subject, images, bounds, [0.1], n=n, **rest)
        write_run(tmp_path / str(n), manifest, [clean, *own])
        assert without_known_clean(tmp_path / str(n), [later]) == written
    write_run(tmp_path / "attacks", manifest, [clean])
    assert without_known_clean(tmp_path / "attacks", [later]) == [later]
