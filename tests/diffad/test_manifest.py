from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from certify.checks import InputError
from diffad.manifest import (
    build_manifest,
    describe_data,
    git_state,
    merge_manifests,
    now,
    run_id,
    versions,
    without_paths,
)


def test_a_manifest_says_what_how_and_where(synthetic):
    manifest = synthetic.manifest()
    (entry,) = manifest["commands"]
    assert entry["command"] == "certify"
    assert entry["config"]["sigma"] == 1.0
    assert entry["seeds"] == {"noise": 0}
    assert entry["world_size"] == 1
    assert entry["hardware"]["cores"] >= 1
    assert entry["hardware"]["cpu"]
    assert {"python", "torch", "diffusers", "accelerate", "numpy", "scipy", "diffad"} <= set(
        entry["versions"]
    )
    assert entry["versions"]["torch"]
    assert entry["seconds"] >= 12
    assert manifest["data"]["probe"]["near_duplicate_auroc"] == 0.52
    json.dumps(manifest, allow_nan=False)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("/home/someone/data/tile", "tile"),
        ("~/data/tile", "tile"),
        ("mvtec:/home/someone/data/tile", "mvtec:tile"),
        ("--data=/home/someone/tile", "--data=tile"),
        ("--data=mvtec:/home/someone/tile", "--data=mvtec:tile"),
        ("C:\\Users\\someone\\tile", "tile"),
        ("data/tile", "data/tile"),
        ("digits:8", "digits:8"),
        ("4/255", "4/255"),
        (Path("/home/someone/runs/a"), "a"),
        ([{"output_dir": Path("/tmp/x")}], [{"output_dir": "x"}]),
        (0.25, 0.25),
        (None, None),
    ],
)
def test_paths_of_the_machine_are_left_out(given, kept):
    assert without_paths(given) == kept


def test_no_absolute_path_is_left_anywhere(tmp_path):
    split = SimpleNamespace(
        name="tile", resolution=32, channels=1, probe={"near_duplicate_auroc": 0.5},
        options={"spec": f"mvtec:{tmp_path}"}, fingerprint=lambda: "ab" * 32,
    )  # fmt: skip
    manifest = build_manifest(
        "certify", {"output_dir": tmp_path, "data": f"mvtec:{tmp_path}"}, data=describe_data(split),
        detectors={}, seeds={}, started=now(), argv=["certify", "--data", f"mvtec:{tmp_path}"],
    )  # fmt: skip
    assert str(tmp_path) not in json.dumps(manifest)
    assert not re.search(r'"[^"]*/(home|root|tmp|Users)/', json.dumps(manifest))


def test_the_run_id_depends_on_options_and_data_only():
    first = run_id("certify", {"sigma": 1.0}, "ab")
    assert first == run_id("certify", {"sigma": 1.0}, "ab")
    assert len({first, run_id("certify", {"sigma": 2.0}, "ab"), run_id("certify", {"sigma": 1.0}, "cd")}) == 3


def test_merging_keeps_one_entry_a_run_and_refuses_other_data(synthetic):
    first, attack = synthetic.manifest(), synthetic.manifest("diffad attack")
    merged = merge_manifests(merge_manifests(first, attack), synthetic.manifest())
    assert sorted(entry["command"] for entry in merged["commands"]) == ["certify", "diffad attack"]
    with pytest.raises(InputError, match="resolution"):
        merge_manifests(first, synthetic.manifest(resolution=32))


def test_git_state_reports_a_checkout_and_its_changes_and_nothing_elsewhere(tmp_path):
    assert git_state(tmp_path) is None

    def git(*words: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *words], check=True, capture_output=True)

    git("init")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-m", "one")
    state = git_state(tmp_path)
    assert state is not None
    assert re.fullmatch(r"[0-9a-f]{40}", state["commit"])
    assert state["dirty"] is False
    (tmp_path / "file").write_text("two")
    assert git_state(tmp_path) == {**state, "dirty": True}
    (tmp_path / "inside").mkdir()
    assert git_state(tmp_path / "inside") is None  # somebody else's repository around an installed package


def test_a_missing_package_has_no_version(monkeypatch):
    monkeypatch.setattr("diffad.manifest.PACKAGES", ("no-such-package-here",))
    assert versions()["no-such-package-here"] is None
