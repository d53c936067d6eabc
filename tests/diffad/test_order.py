from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from certify.types import ScoreBounds
from diffad.conditions import TestedImages, attack_condition, certified_conditions, clean_condition
from diffad.order import OrderError, check_order, count_outside
from diffad.results import write_run


@pytest.fixture
def run(tmp_path, synthetic):
    return synthetic.run(tmp_path / "run", detector="diffusion", smoothing="reference")


def rewrite(run, tmp_path, change):
    """The run with every condition passed through `change`."""
    return write_run(tmp_path / "changed", run.manifest, [change(c) for c in run.conditions])


def test_a_sound_run_passes_and_says_what_was_compared(run):
    report = check_order([run])
    # (4 certified + 3 attacks) against clean, and 2 pairs at equal radius on 3 sides; 3 metrics each
    assert report.comparisons == 7 * 3 + 2 * 3 * 3
    assert (report.scores, report.outside) == (80, 0)
    assert "0 of 80" in report.sentence


def test_a_certificate_above_the_attack_is_found_and_named(run, tmp_path):
    def boast(c):
        if c.condition != "certified" or c.radius != 0.25:
            return c
        apart = np.where(c.images.labels == 1, 9.0, 0.0)
        return replace(c, bounds=ScoreBounds(apart, apart))

    with pytest.raises(OrderError, match=r"AUROC.*diffusion \(l2\), reference.*certified l2 0\.25") as error:
        check_order([rewrite(run, tmp_path, boast)])
    assert "\n" not in str(error.value)


def test_an_attack_that_helps_is_found(run, tmp_path):
    def help_it(c):
        if c.condition != "attack" or c.norm != "linf":
            return c
        # the clean scores, but for a few anomalies that the attack made easier to find
        apart = c.unattacked().lower.copy()
        apart[np.argsort(np.where(c.images.labels == 1, apart, np.inf))[:6]] = 9.0
        return replace(c, bounds=ScoreBounds(apart, apart))

    with pytest.raises(OrderError, match=r"attack linf.*clean"):
        check_order([rewrite(run, tmp_path, help_it)])


def test_rates_are_compared_the_other_way_round(run, tmp_path):
    """Equal AUROC, but fewer false alarms at 95 % TPR under attack than clean: only the rate shows it."""
    (clean,) = run.of(run.subjects[0], "clean")
    labels = clean.images.labels
    # 20 anomalies, 20 normals. Clean: one anomaly below all normals. Attacked: two halfway down.
    scores = np.where(labels == 1, 2.0, 1.0)
    scores[labels == 1] += np.linspace(0, 0.1, 20)
    low_two, attacked = scores.copy(), scores.copy()
    low_two[np.flatnonzero(labels == 1)[:2]] = 0.0
    attacked[np.flatnonzero(labels == 1)[:1]] = -1.0
    conditions = [
        replace(clean, bounds=ScoreBounds.exact(low_two)),
        attack_condition(
            clean.subject, clean.images, ScoreBounds.exact(attacked), norm="l2", eps=0.3, n=clean.n, seed=0
        ),
    ]
    with pytest.raises(OrderError):
        check_order([write_run(tmp_path / "rates", run.manifest, conditions)])


def test_a_bare_score_and_the_way_none_are_one_subject(tmp_path, synthetic):
    run = synthetic.run(tmp_path / "run", smoothing="none")

    def bare(c):
        return replace(c, subject=c.subject._replace(smoothing="")) if c.condition == "attack" else c

    report = check_order([rewrite(run, tmp_path, bare)])
    assert report.scores == 80


def test_only_shared_images_are_compared(run, tmp_path):
    few = np.r_[0:5, 20:25]

    def subset(c):
        return c.take(few) if c.condition == "attack" else c

    report = check_order([rewrite(run, tmp_path, subset)])
    assert report.scores == 20


def test_runs_of_one_detector_are_checked_across_folders(run, tmp_path, synthetic):
    weak = [c for c in run.conditions if c.condition != "attack"]
    attacks = [c for c in run.conditions if c.condition == "attack"]
    one = write_run(tmp_path / "certified", run.manifest, weak)
    two = write_run(tmp_path / "attacked", run.manifest, attacks)
    assert check_order([one]).scores == 0
    assert check_order([one, two]).scores == 80
    other = {**run.manifest, "detectors": {"diffusion": "another training"}}
    assert check_order([one, write_run(tmp_path / "other", other, attacks)]).scores == 0


def test_scores_outside_their_interval_are_counted_at_the_attacked_end(run):
    certified = next(c for c in run.of(run.subjects[0], "certified") if c.radius == 0.1)
    attacked = next(c for c in run.of(run.subjects[0], "attack", "l2") if c.radius == 0.1)
    assert count_outside(certified, attacked) == (40, 0)
    upper = attacked.bounds.upper.copy()
    upper[:3] += 5.0  # three normal images pushed out of what the certificate allows
    escaped = replace(attacked, bounds=ScoreBounds(attacked.bounds.lower, upper))
    assert count_outside(certified, escaped) == (40, 3)


def test_nothing_to_compare_is_said_and_not_an_error(run, tmp_path):
    certified = [c for c in run.conditions if c.condition == "certified"]
    report = check_order([write_run(tmp_path / "alone", run.manifest, certified)])
    assert report.comparisons == 0
    assert "nothing to compare" in report.sentence


def test_a_larger_ball_that_is_proved_better_is_found(run, tmp_path):
    def narrow(c):
        if c.condition != "certified" or c.radius != 0.1:
            return c
        return replace(c, bounds=ScoreBounds(c.bounds.lower - 0.5, c.bounds.upper))

    with pytest.raises(OrderError, match=r"0\.25, n = 1000: 40 intervals are narrower than at radius 0\.1"):
        check_order([rewrite(run, tmp_path, narrow)])


def test_each_outlier_set_is_compared_where_means_over_sets_are_stated(run, tmp_path):
    """A certificate above the attack on the one image of a small set, which the many of a large one hide."""
    images = TestedImages(
        np.arange(6), tuple("abcdef"), np.array([0, 0, 1, 1, 1, 1]), ("good", "good", "a/1", *["b/1"] * 3)
    )
    calm, proved, reached = (
        np.array([0.0, 1.0, *others])
        for others in ((3.0, 3.0, 3.0, 3.0), (2.0, -1.0, -1.0, -1.0), (0.5, 2.0, 2.0, 2.0))
    )
    subject = run.subjects[0]
    threat = {"norm": "l2", "eps": 0.5, "n": 0, "seed": 0}
    options = {"n": 0, "alpha": None, "alpha_kind": "", "seed": 0}
    conditions = [
        clean_condition(subject, images, calm, n=0, seed=0),
        *certified_conditions(
            *(subject, images, ScoreBounds(np.stack([proved]), np.stack([calm])), (0.5,)), **options
        ),
        attack_condition(subject, images, ScoreBounds(reached, np.maximum(calm, reached)), **threat),
    ]
    assert check_order([write_run(tmp_path / "pooled", run.manifest, conditions)]).comparisons
    ood = {**run.manifest, "data": {**run.manifest["data"], "options": {"protocol": "ood"}}}
    with pytest.raises(OrderError, match="certified l2"):
        check_order([write_run(tmp_path / "ood", ood, conditions)])
