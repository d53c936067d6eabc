"""The lines below a paper's tables that say what the checks of its attacks found."""

import importlib
import json
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "paper_repro"
PASSED = {"name": "floor", "passed": True, "mandatory": True}
FAILED = {"name": "black_boxes", "passed": False, "mandatory": True}
OPTIONAL = {"name": "doubling", "passed": False, "mandatory": False}
SKIPPED = {"name": "zero_gradients", "passed": None, "mandatory": True}


@pytest.fixture
def checked(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("common.checked").checked


def record(output: Path, label: str, *commands: list[dict]) -> str:
    folder = output / "runs" / label
    folder.mkdir(parents=True)
    manifest = {"commands": [{"command": "certify"}, *({"attacks": found} for found in commands)]}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return label


def attack(eps: str, *checks: dict, known: bool = True) -> dict:
    failed = [check["name"] for check in checks if check["passed"] is False and check["mandatory"]]
    return {
        "method": "pgd",
        "norm": "linf",
        "eps": eps,
        "checks": list(checks),
        "failed_checks": failed if known else None,
    }


def test_every_radius_counts_and_what_failed_or_is_missing_is_named(checked, tmp_path) -> None:
    labels = [
        record(tmp_path, "sound", [attack("1/255", PASSED, SKIPPED), attack("2/255", PASSED, OPTIONAL)]),
        record(tmp_path, "weak", [attack("1/255", PASSED, FAILED)]),
        record(tmp_path, "unknown", [attack("1/255", known=False)]),
    ]
    assert checked(tmp_path, labels).splitlines() == [
        "Attacks that passed all mandatory checks: 2 of 4.",
        "",
        "- attacks without checks: 1",
        "- sound, 2/255: check doubling (not mandatory) FAILED",
        "- weak, 1/255: check black_boxes FAILED",
    ]


def test_attacks_that_are_compared_are_named_but_not_counted(checked, tmp_path) -> None:
    labels = [
        record(tmp_path, "detector", [attack("1/255", PASSED)]),
        record(tmp_path, "surrogate", [attack("1/255", FAILED)]),
    ]
    assert checked(tmp_path, labels, {"surrogate"}).splitlines() == [
        "Attacks that passed all mandatory checks: 1 of 1.",
        "",
        "- surrogate, 1/255, not counted, a comparison of attacks: check black_boxes FAILED",
    ]


def test_of_an_attack_that_was_repeated_the_last_one_counts(checked, tmp_path) -> None:
    label = record(tmp_path, "again", [attack("1/255", FAILED)], [attack("1/255", PASSED)])
    assert checked(tmp_path, [label]).splitlines() == [
        "Attacks that passed all mandatory checks: 1 of 1.",
        "",
    ]


def test_without_attacks_nothing_is_said(checked, tmp_path) -> None:
    assert checked(tmp_path, [record(tmp_path, "certificate"), "not there"]) == ""
