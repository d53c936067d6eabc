"""What is joined into one row, what is not, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from certify.types import ScoreBounds
from diffad.leaderboard import build_leaderboard, read_records, words
from diffad.metric_rows import auroc_table
from diffad.order import OrderError
from diffad.tables import MISSING, find, interval_text

L2, QUARTER = "l2", 0.25


def only(board, **wanted):
    """The one entry of all boards with these attributes."""
    found = [
        entry
        for one in board.boards
        for entry in one.entries
        if all(getattr(entry, name) == value for name, value in wanted.items())
    ]
    assert len(found) == 1
    return found[0]


def test_a_row_holds_what_the_table_of_its_run_says(folders) -> None:
    rows = auroc_table(folders.write("one"))
    board = folders.board()
    for side in ("in", "out", "both"):
        entry = only(board, norm=L2, radius=QUARTER, side=side)
        at = {"norm": L2, "radius": QUARTER, "side": side}
        assert entry.clean.value == find(rows, condition="clean")["auroc"]
        assert entry.certified.value == find(rows, condition="certified", **at)["auroc"]
        assert entry.attacked.value == find(rows, condition="attack", **at)["auroc"]
        assert entry.gap == pytest.approx(entry.attacked.value - entry.certified.value)
    (one,) = board.boards
    assert (one.normals, one.anomalies, one.name, one.resolution) == (20, 20, "digits:8", 16)
    # 3 radii above 0 in L2 and one in Linf, three sides each
    assert len(one.entries) == 12
    assert board.order.comparisons > 0


def test_every_row_is_in_order_and_rows_of_a_threat_are_ranked(folders) -> None:
    folders.write("one")
    folders.write("two", detector="pca", slope=0.5)
    folders.write("three", detector="diffusion", smoothing="reference", sigma=1.0)
    for one in folders.board().boards:
        for entry in one.entries:
            known = [
                found.value for found in (entry.certified, entry.attacked, entry.clean) if found is not None
            ]
            assert known == sorted(known)
        for before, after in pairwise(one.entries):
            if (before.norm, before.side, before.radius) == (
                after.norm,
                after.side,
                after.radius,
            ) and before.certified:
                assert after.certified is None or before.certified.value >= after.certified.value


def test_certificate_and_attack_in_two_folders_make_one_row(folders) -> None:
    folders.write("certified", ("clean", "certified"))
    folders.write("attacked", ("clean", "attack"))
    entry = only(folders.board(), norm=L2, radius=QUARTER, side="both")
    assert [record.name for record in entry.records] == ["certified", "attacked"]
    assert entry.gap is not None


@pytest.mark.parametrize(
    "apart",
    [
        {"fingerprint": "cd" * 32},
        {"change": lambda one: one.take(np.r_[0:10, 20:30])},
        {"manifest": lambda manifest: manifest["detectors"].update(pixel_nn="other weights")},
        {"options": {"protocol": "ood"}, "change": lambda one: named(one)},
    ],
    ids=["other data", "other images", "other weights", "other protocol"],
)
def test_what_does_not_speak_of_one_thing_is_not_joined(apart, folders) -> None:
    folders.write("certified", ("clean", "certified"))
    folders.write("attacked", ("clean", "attack"), **apart)
    board = folders.board()
    found = [
        entry
        for one in board.boards
        for entry in one.entries
        if (entry.norm, entry.radius, entry.side) == (L2, QUARTER, "both")
    ]
    assert sorted((entry.certified is None, entry.attacked is None) for entry in found) == [
        (False, True),
        (True, False),
    ]
    assert all(entry.gap is None and entry.clean is not None for entry in found)


def named(condition):
    """The condition with the outlier sets a (4 anomalies) and b (the others)."""
    owner = iter("a" * 4 + "b" * 100)
    defects = tuple(f"{next(owner)}/x" if label else "good" for label in condition.images.labels)
    return replace(condition, images=replace(condition.images, defects=defects))


def test_two_detectors_under_one_label_are_told_apart(folders) -> None:
    folders.write("one")
    folders.write("two", manifest=lambda manifest: manifest["detectors"].update(pixel_nn="other weights"))
    labels = {entry.label for entry in folders.board().boards[0].entries}
    assert labels == {"pixel_nn (l2) [one]", "pixel_nn (l2) [two]"}


def test_all_rows_of_a_detector_bear_one_label(folders) -> None:
    """Also those that stand on its attack alone: the rows of a threat are found by their label."""

    def other(manifest):
        manifest["detectors"].update(pixel_nn="other weights")

    folders.write("one")
    folders.write("attacked", ("clean", "attack"), manifest=other)
    folders.write("certified", ("certified",), manifest=other)
    records, _ = read_records([folders.root], folders.root)
    bare = [
        replace(
            record,
            run=replace(
                record.run,
                conditions=tuple(
                    c for c in record.run.conditions if c.condition != "certified" or c.radius > 0
                ),
            ),
        )
        if record.name == "certified"
        else record
        for record in records
    ]
    (board,) = build_leaderboard(bare).boards
    alone = {entry.side for entry in board.entries if entry.certified is None and entry.norm == L2}
    assert alone == {"in", "out"}
    assert {entry.label for entry in board.entries} == {"pixel_nn (l2) [certified]", "pixel_nn (l2) [one]"}


def test_noise_levels_are_rows_of_their_own(folders) -> None:
    for sigma in (0.25, 0.5, 1.0):
        folders.write(f"sigma-{sigma}", smoothing="input", sigma=sigma)
    labels = {entry.label for entry in folders.board().boards[0].entries}
    assert labels == {f"pixel_nn (l2), input, σ = {sigma:g}" for sigma in (0.25, 0.5, 1.0)}


def test_means_over_outlier_sets_say_so(folders) -> None:
    run = folders.write("ood", options={"protocol": "ood"}, change=named)
    rows = auroc_table(run)
    board = folders.board()
    assert board.boards[0].sets == ("a", "b")
    entry = only(board, norm=L2, radius=QUARTER, side="both")
    row = find(rows, condition="certified", norm=L2, radius=QUARTER, side="both")
    assert entry.certified.value == row["auroc"] == np.mean(list(row["auroc_sets"].values()))
    assert words.spread(entry.certified) == interval_text(row["auroc_bootstrap"]) != MISSING


def test_one_side_alone_where_a_certificate_has_no_radius_0(folders) -> None:
    run = folders.write("one")
    kept = [one for one in run.conditions if one.condition == "certified" and one.radius > 0]
    ((record,), _) = read_records([run.folder])
    bare = replace(record, run=replace(record.run, conditions=tuple(kept)))
    board = build_leaderboard([bare])
    assert {entry.side for entry in board.boards[0].entries} == {"both"}
    assert all(entry.clean is None and entry.attacked is None for entry in board.boards[0].entries)


def test_clean_scores_alone_make_no_row(folders) -> None:
    folders.write("one")
    folders.write("clean", ("clean",), detector="pca")
    board = folders.board()
    assert [record.name for record in board.silent] == ["clean"]
    assert {entry.subject.detector for one in board.boards for entry in one.entries} == {"pixel_nn"}


def test_a_copy_of_a_folder_adds_nothing(folders) -> None:
    folders.write("one")
    alone = folders.board()
    folders.write("two")
    both = folders.board()
    assert [len(one.entries) for one in both.boards] == [len(one.entries) for one in alone.boards]


def at_time(when):
    return lambda manifest: manifest["commands"][0].update(finished=when)


def test_of_two_certificates_the_newer_counts_though_it_be_worse(folders) -> None:
    folders.write("a", ("clean", "certified"), slope=1.0, manifest=at_time("2026-03-01T00:00:00+00:00"))
    folders.write("b", ("clean", "certified"), slope=0.5, manifest=at_time("2026-02-01T00:00:00+00:00"))
    entry = only(folders.board(), norm=L2, radius=QUARTER, side="both")
    assert [record.name for record in entry.records] == ["a"]


def test_of_two_attacks_the_one_that_reached_further_counts(folders) -> None:
    folders.write("weak", ("clean", "attack"), slope=0.5, manifest=at_time("2026-03-01T00:00:00+00:00"))
    folders.write("strong", ("clean", "attack"), slope=1.0, manifest=at_time("2026-02-01T00:00:00+00:00"))
    entry = only(folders.board(), norm=L2, radius=QUARTER, side="both")
    assert [record.name for record in entry.records] == ["strong"]


def test_an_attack_that_went_below_the_certificate_is_a_loud_error(folders) -> None:
    folders.write("certified", ("clean", "certified"))
    folders.write("attacked", ("clean", "attack"), slope=3.0)
    with pytest.raises(OrderError, match="order violated") as error:
        folders.board()
    assert str(folders.root / "certified") in str(error.value)
    assert str(folders.root / "attacked") in str(error.value)


def test_a_row_is_checked_even_where_the_data_bear_two_names(folders) -> None:
    """The check of the conditions compares subjects, and these differ; the rows are joined by the fingerprint."""
    folders.write("certified", ("clean", "certified"))
    folders.write("attacked", ("clean", "attack"), slope=3.0, name="folder:digits:8")
    with pytest.raises(
        OrderError, match=r"certified 0\.\d+ in .*certified is above attacked 0\.\d+ in .*attacked"
    ):
        folders.board()


def test_a_clean_score_by_other_draws_cannot_break_the_order_of_a_row(folders) -> None:
    """Recorded clean scores are drawn anew; a row has those of the draws that judged the attack."""

    def redrawn(one):
        rng = np.random.default_rng(3)
        drawn = one.bounds.lower + 0.2 * rng.standard_normal(len(one.images))
        return replace(one, bounds=ScoreBounds.exact(drawn)) if one.condition == "clean" else one

    folders.write("one", ("clean", "attack"), slope=1e-4, change=redrawn)
    for entry in folders.board().boards[0].entries:
        assert entry.attacked.value <= entry.clean.value
