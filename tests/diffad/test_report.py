from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from certify.types import ScoreBounds
from diffad.examples import Examples, write_examples
from diffad.order import OrderError
from diffad.report import report_command
from diffad.results import write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory, synthetic):
    folder = tmp_path_factory.mktemp("report") / "run"
    run = synthetic.run(folder, detector="diffusion", smoothing="reference")
    pictures = np.random.default_rng(0).random((2, 1, 8, 8), dtype=np.float32)
    write_examples(
        run.folder, Examples(run.subjects[0], np.array([0, 39]), pictures, pictures, pictures[:, 0])
    )
    return run


@pytest.fixture(scope="module")
def page(run):
    return report_command(run.folder).read_text(encoding="utf-8")


def test_the_page_needs_nothing_from_elsewhere(page):
    assert not re.search(r"https?://", page)
    assert "<script" not in page
    sources = re.findall(r'(?:src|srcset|href)="([^"]*)"', page)
    assert len(sources) == 1 + 2 * 3  # the empty icon, and three figures in two themes
    assert all(source.startswith("data:") for source in sources)


def test_the_page_is_made_for_phones_and_dark_rooms(page):
    assert 'name="viewport"' in page
    assert "prefers-color-scheme: dark" in page


def test_the_page_says_what_how_sure_and_what_not(page):
    for words in (
        "What was measured", "σ = 1", "n = 1000", "alpha = 0.001",
        "with probability at least 0.9990 over the certification noise",
        "What this does not say", "AUROC of the probe", "≤ attacked ≤ clean holds", "Manifest",
    ):  # fmt: skip
        assert words in page, words


def test_the_page_names_the_percentile_where_it_is_not_the_median(tmp_path, run, page):
    assert "reference: median error of the image" in page
    assert "What is certified is the median score" in page
    entry = {**run.manifest["commands"][0], "command": "certify", "config": {"percentile": 0.3}}
    other = write_run(tmp_path / "other", {**run.manifest, "commands": [entry]}, run.conditions)
    found = report_command(other.folder).read_text(encoding="utf-8")
    assert "reference: percentile 0.3 of the error of the image" in found
    assert "What is certified is the percentile 0.3 of the score over fresh noise" in found
    assert "median error" not in found


def test_figures_and_summary_are_written_beside_it(run, page):
    names = {path.name for path in (run.folder / "figures").iterdir()}
    assert names == {"headline.png", "scores.png", "examples.png"}
    assert json.loads((run.folder / "summary.json").read_text())["auroc"]


def test_json_is_one_object(run, capsys):
    report_command(run.folder, json=True)
    printed = json.loads(capsys.readouterr().out)
    assert printed["report"].endswith("report.html")
    assert any(row["condition"] == "certified" for row in printed["auroc"])


def test_rows_without_a_network_stand_beside(run, tmp_path, synthetic):
    beside = synthetic.run(tmp_path / "beside", detector="patch_nn")
    both = write_run(tmp_path / "both", run.manifest, [*run.conditions, *beside.conditions])
    page = report_command(both.folder).read_text(encoding="utf-8")
    assert "Without a network" in page
    assert "patch_nn (l2) certifies" in page
    assert "How robust is diffusion?" in page


def test_a_run_of_clean_scores_alone_is_reported(tmp_path, run):
    clean = write_run(tmp_path / "clean", run.manifest, run.of(run.subjects[0], "clean"))
    page = report_command(clean.folder).read_text(encoding="utf-8")
    assert "nothing was certified in this run" in page


def test_where_nothing_is_certified_the_page_says_so(tmp_path, run):
    def hopeless(c):
        if c.condition != "certified":
            return c
        return replace(c, bounds=ScoreBounds(np.full(40, -np.inf), np.full(40, np.inf)))

    poor = write_run(tmp_path / "poor", run.manifest, [hopeless(c) for c in run.conditions])
    page = report_command(poor.folder).read_text(encoding="utf-8")
    assert "nothing is certified" in page
    assert "brings the AUROC below" not in page
    assert "better than a coin" not in page


def test_a_detector_no_better_than_a_coin_is_called_that(tmp_path, run):
    def coin(c):
        if c.condition == "clean":
            return replace(c, bounds=ScoreBounds.exact(np.ones(40)))
        return replace(c, bounds=ScoreBounds(np.full(40, -np.inf), np.full(40, np.inf)))

    poor = write_run(
        tmp_path / "coin", run.manifest, [coin(c) for c in run.conditions if c.condition != "attack"]
    )
    page = report_command(poor.folder).read_text(encoding="utf-8")
    assert (
        "nothing is certified (clean, this is no better than a coin, so there is nothing to certify)" in page
    )


def test_no_page_for_a_run_out_of_order(tmp_path, run):
    def boast(c):
        apart = np.where(c.images.labels == 1, 9.0, 0.0)
        return replace(c, bounds=ScoreBounds(apart, apart)) if c.condition == "certified" else c

    wrong = write_run(tmp_path / "wrong", run.manifest, [boast(c) for c in run.conditions])
    with pytest.raises(OrderError):
        report_command(wrong.folder)
    assert not (wrong.folder / "report.html").exists()


def test_names_from_outside_are_escaped(tmp_path, synthetic):
    run = synthetic.run(tmp_path / "run", name="<script>alert(1)</script>")
    assert "<script" not in report_command(run.folder).read_text(encoding="utf-8")


def test_of_outlier_sets_the_page_says_that_numbers_are_means(run, tmp_path):
    def named(c):
        owner = iter("ab" * 100)
        return tuple(f"{next(owner)}/x" if label else "good" for label in c.images.labels)

    conditions = [replace(c, images=replace(c.images, defects=named(c))) for c in run.conditions]
    data = {**run.manifest["data"], "options": {"protocol": "ood"}}
    data["probe"] = {"roughness_auroc": {"a": 0.75, "b": 0.5}}
    ood = write_run(tmp_path / "ood", {**run.manifest, "data": data}, conditions)
    page = report_command(ood.folder).read_text(encoding="utf-8")
    assert page.count("mean over the outlier sets a, b") >= 3  # numbers, table, statement
    assert "a 0.75, b 0.5" in page
