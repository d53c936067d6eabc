from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from certify.checks import InputError
from diffad.compare import compare_command, compare_table, format_comparison
from diffad.results import write_run
from diffad.tables import NOTHING, interval_text


@pytest.fixture
def runs(tmp_path, synthetic):
    return [
        synthetic.run(tmp_path / "diffusion", detector="diffusion", smoothing="reference"),
        synthetic.run(tmp_path / "pixel_nn", slope=0.5),
    ]


def test_rows_are_joined_by_radius_best_first(runs):
    rows = compare_table(runs)
    at = [row for row in rows if row["radius"] == 0.25]
    assert [row["detector"] for row in at] == ["pixel_nn", "diffusion"]
    assert all(row["certified"] <= row["attacked"] <= row["clean"] for row in at)
    assert [row["attacked"] for row in rows if row["radius"] == 0.5] == [None, None]


def test_three_files_and_a_table_are_written(runs, tmp_path, capsys):
    page = compare_command([run.folder for run in runs], tmp_path / "out").read_text(encoding="utf-8")
    printed = capsys.readouterr().out
    assert NOTHING in printed
    assert "certified <= attacked <= clean holds" in printed
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "compare.html",
        "compare.json",
        "compare.png",
    }
    assert not re.search(r"https?://", page)
    content = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert len(content["rows"]) == 8


def test_json_is_one_object(runs, tmp_path, capsys):
    compare_command([run.folder for run in runs], tmp_path / "out", json=True)
    assert json.loads(capsys.readouterr().out)["data"]["name"] == "digits:8"


@pytest.mark.parametrize("change", [{"fingerprint": "cd" * 32}, {"resolution": 32}])
def test_other_data_or_resolution_is_refused(change, runs, tmp_path, synthetic):
    other = synthetic.run(tmp_path / "other", **change)
    with pytest.raises(InputError, match="one data set at one resolution") as error:
        compare_command([runs[0].folder, other.folder], tmp_path / "out")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_certificate_and_its_attack_in_two_folders_make_one_row(runs, tmp_path):
    run = runs[0]
    parts = [
        write_run(
            tmp_path / name, run.manifest, [c for c in run.conditions if (c.condition == "attack") == attack]
        )
        for name, attack in (("one", False), ("two", True))
    ]
    assert compare_table(parts)[2]["attacked"] == compare_table([run])[2]["attacked"] is not None
    assert len(compare_table(parts)) == len(compare_table([run]))


def test_parts_of_the_test_set_are_pointed_out(runs, tmp_path):
    few = [c.take(np.r_[0:10, 20:30]) for c in runs[1].conditions]
    small = write_run(tmp_path / "small", runs[1].manifest, few)
    text = format_comparison(compare_table([runs[0], small]))
    assert "note: rows stand on different parts of the test set" in text
    assert "10 + 10" in text
    assert "note:" not in format_comparison(compare_table(runs))


def test_no_run_at_all_is_refused(tmp_path):
    with pytest.raises(InputError, match="at least one run"):
        compare_command([], tmp_path)


def test_the_best_row_of_a_radius_is_compared_with_the_others_on_the_same_images(runs):
    at = [row for row in compare_table(runs) if row["radius"] == 0.25]
    assert at[0]["behind"] is None
    value, low, high = at[1]["behind"]
    assert value == pytest.approx(at[0]["certified"] - at[1]["certified"])
    assert low < value < high
    assert f"{value:.3f} [" in format_comparison(at)


def test_rows_on_other_images_are_not_paired(runs, tmp_path):
    few = [c.take(np.r_[0:10, 20:30]) for c in runs[1].conditions]
    small = write_run(tmp_path / "small", runs[1].manifest, few)
    assert all(row["behind"] is None for row in compare_table([runs[0], small]))


def test_each_row_names_the_folder_that_it_comes_from(tmp_path, synthetic) -> None:
    one = synthetic.run(tmp_path / "one", detector="diffusion", smoothing="reference")
    two = synthetic.run(tmp_path / "two", detector="diffusion", smoothing="denoise")
    found = {(row["smoothing"], row["run"]) for row in compare_table([one, two])}
    assert found == {("reference", "one"), ("denoise", "two")}


def over_sets(run, folder, protocol="ood"):
    """The run as one against the outlier sets a (4 anomalies) and b (the others)."""

    def named(condition):
        owner = iter("a" * 4 + "b" * 100)
        defects = tuple(f"{next(owner)}/x" if label else "good" for label in condition.images.labels)
        return replace(condition, images=replace(condition.images, defects=defects))

    manifest = {**run.manifest, "data": {**run.manifest["data"], "options": {"protocol": protocol}}}
    return write_run(folder, manifest, [named(c) for c in run.conditions])


def test_means_over_outlier_sets_have_the_interval_of_the_bootstrap(runs, tmp_path) -> None:
    rows = compare_table([over_sets(run, tmp_path / f"ood-{i}") for i, run in enumerate(runs)])
    at = [row for row in rows if row["radius"] == 0.25]
    assert all(row["auroc_interval"] is None for row in at)
    assert all(row["auroc_bootstrap"][0] <= row["certified"] <= row["auroc_bootstrap"][1] for row in at)
    value, low, high = at[1]["behind"]
    assert value == pytest.approx(at[0]["certified"] - at[1]["certified"])
    assert low <= value <= high
    assert [low, high] == at[1]["behind_bootstrap"]
    text = format_comparison(at)
    assert "outlier sets a, b; its intervals are those of the bootstrap" in text
    assert interval_text(at[0]["auroc_bootstrap"]) in text


def test_a_mean_over_sets_does_not_stand_beside_a_pooled_auroc(runs, tmp_path) -> None:
    """The same images under another protocol have the same fingerprint, but not the same number."""
    one = over_sets(runs[0], tmp_path / "ood")
    other = over_sets(runs[1], tmp_path / "pooled", "unlabeled_multiclass")
    with pytest.raises(InputError, match="AUROCs of all images together; compare runs of one protocol"):
        compare_command([one.folder, other.folder], tmp_path / "out")
