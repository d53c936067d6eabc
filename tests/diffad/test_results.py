from __future__ import annotations

import json
import threading
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from certify.checks import InputError
from certify.files import write_atomic
from certify.types import ScoreBounds
from diffad.conditions import Subject, TestedImages, attack_condition, clean_condition
from diffad.results import read_run, write_run
from diffad.rows import SCHEMA, from_table, to_table

SUBJECT = Subject("digits:8", 16, "pixel_nn", "none", "l2", None)
SMOOTHED = Subject("digits:8", 16, "diffusion", "reference", "l2", 1.0)


@pytest.mark.parametrize("subject", [SUBJECT, SMOOTHED])
def test_rows_come_back_as_they_were_written(subject, tmp_path, synthetic):
    conditions = synthetic.conditions(subject)
    write_run(tmp_path, synthetic.manifest(), conditions)
    run = read_run(tmp_path)
    assert pq.read_table(tmp_path / "images.parquet").schema.equals(SCHEMA)
    assert len(run.conditions) == len(conditions)
    by_key = {condition.key: condition for condition in run.conditions}
    for condition in conditions:
        found = by_key[condition.key]
        np.testing.assert_array_equal(found.bounds.lower, condition.bounds.lower)
        np.testing.assert_array_equal(found.bounds.upper, condition.bounds.upper)
        np.testing.assert_array_equal(found.images.labels, condition.images.labels)
        assert found.images.identifiers == condition.images.identifiers
        assert (found.subject, found.alpha, found.threshold) == (
            subject,
            condition.alpha,
            condition.threshold,
        )


def test_rows_are_ordered_by_condition_and_image_whatever_the_order_given(synthetic):
    images = synthetic.images()
    order = np.random.default_rng(1).permutation(len(images))
    shuffled = TestedImages(
        images.index[order],
        tuple(images.identifiers[i] for i in order),
        images.labels[order],
        tuple(images.defects[i] for i in order),
    )
    scores = synthetic.scores(images)
    straight = clean_condition(SUBJECT, images, scores, n=0, seed=0)
    mixed = clean_condition(SUBJECT, shuffled, scores[order], n=0, seed=0)
    assert to_table([straight]).equals(to_table([mixed]))


def test_a_second_command_adds_conditions_and_replaces_its_own_whole(tmp_path, synthetic):
    conditions = synthetic.conditions(SUBJECT)
    write_run(tmp_path, synthetic.manifest("certify"), conditions)
    few = synthetic.images(5)
    scores = synthetic.scores(few) + 100.0
    clean = clean_condition(SUBJECT, few, scores, n=0, seed=0)
    ends = ScoreBounds.exact(scores)
    extra = attack_condition(SUBJECT, few, ends, norm="l2", eps=0.5, n=0, seed=0)
    run = write_run(tmp_path, synthetic.manifest("diffad attack"), [clean, extra])
    assert [entry["command"] for entry in run.manifest["commands"]] == ["certify", "diffad attack"]
    assert len(run.conditions) == len(conditions) + 1
    (now_clean,) = run.of(SUBJECT, "clean")
    np.testing.assert_array_equal(now_clean.bounds.lower, scores)  # ten rows, none of the forty older ones


def test_a_folder_can_be_read_while_another_process_writes_to_it(tmp_path, synthetic):
    conditions = synthetic.conditions(SUBJECT)
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            for shown in (conditions[:1], conditions):  # files of different length
                table = to_table(shown)
                write_atomic(
                    tmp_path / "images.parquet", lambda path, table=table: pq.write_table(table, path)
                )

    write_run(tmp_path, synthetic.manifest(), conditions)
    writer = threading.Thread(target=write)
    writer.start()
    try:
        counts = {len(read_run(tmp_path).conditions) for _ in range(200)}
    finally:
        stop.set()
        writer.join()
    assert counts <= {1, len(conditions)}


def test_the_same_command_again_keeps_one_entry(tmp_path, synthetic):
    for _ in range(2):
        run = write_run(tmp_path, synthetic.manifest(), synthetic.conditions(SUBJECT))
    assert len(run.manifest["commands"]) == 1
    assert len(run.conditions) == len(synthetic.conditions(SUBJECT))


def test_other_data_is_not_mixed_in(tmp_path, synthetic):
    write_run(tmp_path, synthetic.manifest(), synthetic.conditions(SUBJECT))
    with pytest.raises(InputError, match="fingerprint"):
        write_run(tmp_path, synthetic.manifest(fingerprint="cd" * 32), synthetic.conditions(SUBJECT))


def test_another_detector_of_the_same_name_is_not_mixed_in(tmp_path, synthetic):
    write_run(tmp_path, synthetic.manifest(), synthetic.conditions(SUBJECT))
    other = {**synthetic.manifest(), "detectors": {"pixel_nn": "other weights"}}
    with pytest.raises(InputError, match="another pixel_nn"):
        write_run(tmp_path, other, synthetic.conditions(SUBJECT))


def test_rows_must_belong_to_the_manifest(tmp_path, synthetic):
    with pytest.raises(InputError, match="under a manifest of digits:8"):
        write_run(tmp_path, synthetic.manifest(), synthetic.conditions(SUBJECT._replace(dataset="digits:3")))


def test_two_attacks_of_one_size_stand_side_by_side(tmp_path, synthetic):
    images = synthetic.images()
    ends, options = ScoreBounds.exact(synthetic.scores(images)), {"norm": "l2", "eps": 0.1, "n": 0, "seed": 0}
    rows = [attack_condition(SUBJECT, images, ends, method=name, **options) for name in ("pgd", "square")]
    run = write_run(tmp_path, synthetic.manifest(), rows)
    assert [c.method for c in run.of(SUBJECT, "attack")] == ["pgd", "square"]
    with pytest.raises(InputError, match="only attacks have one"):
        replace(clean_condition(SUBJECT, images, ends.lower, n=0, seed=0), method="pgd")


def test_rows_from_before_attacks_had_names_are_read(synthetic):
    old = to_table(synthetic.conditions(SUBJECT)).drop_columns(["method"])
    assert {condition.method for condition in from_table(old)} == {""}


def test_a_single_class_is_refused(synthetic):
    images = synthetic.images()
    with pytest.raises(InputError, match="both classes"):
        replace(images, labels=np.zeros(len(images), dtype=np.int64))


def test_clean_rows_are_exact_and_only_certificates_may_be_infinite(synthetic):
    images = synthetic.images()
    scores = synthetic.scores(images)
    clean = clean_condition(SUBJECT, images, scores, n=0, seed=0)
    with pytest.raises(InputError, match="lower = upper"):
        replace(clean, bounds=ScoreBounds(scores - 1, scores))
    with pytest.raises(InputError, match="infinite"):
        attack_condition(
            SUBJECT, images, ScoreBounds(scores, scores + np.inf), norm="l2", eps=0.1, n=0, seed=0
        )


def test_a_broken_folder_is_named(tmp_path, synthetic):
    with pytest.raises(InputError, match="no run folder"):
        read_run(tmp_path)
    run = write_run(tmp_path, synthetic.manifest(), synthetic.conditions(SUBJECT))
    table = pq.read_table(tmp_path / "images.parquet")
    with pytest.raises(InputError, match=r"missing columns \['upper'\]"):
        from_table(table.drop_columns(["upper"]))
    (tmp_path / "images.parquet").write_bytes(b"half a file")
    with pytest.raises(InputError, match="cannot be read"):
        read_run(run.folder)


def test_the_summary_is_valid_json_with_the_table(tmp_path, synthetic):
    write_run(tmp_path, synthetic.manifest(), synthetic.conditions(SMOOTHED))
    summary = json.loads((tmp_path / "summary.json").read_text())
    radii = {row["radius"] for row in summary["auroc"] if row["condition"] == "certified"}
    assert radii == set(synthetic.radii)
