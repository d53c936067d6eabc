from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from certify.certificate import certify_scores, percentile_scores
from certify.checks import InputError
from certify.metrics import auroc
from diffad import evaluation
from diffad.attack_evaluation import attack_split
from diffad.baselines.choose import certified_merit, fit_baseline
from diffad.baselines.closed_form import ClosedForm
from diffad.baselines.pca import PCA
from diffad.baselines.pixel_nn import PixelNN
from diffad.data import load_data
from diffad.drawn import clean_estimates
from diffad.evaluation import certify_split
from diffad.manifest import build_manifest, describe_data, now
from diffad.order import check_order
from diffad.plan import Plan, baseline_plan, default_smoothing, load_purifier, smooth
from diffad.results import write_run

RADII = (0.05, 0.25)
PLAN = Plan(
    smoothing="reference", sigma=0.5, radii=RADII, n=100, batch_size=100, alpha=0.01, alpha_per_image=0.002
)
NONE = replace(PLAN, smoothing="none", sigma=None)
ATTACK = {"norm": "l2", "radii": RADII, "steps": 4, "eot": 4, "restarts": 1, "seed": 0}


@pytest.fixture(scope="module")
def split():
    return load_data("digits", normal_class="8", resolution=8, limit=4)


@pytest.fixture(scope="module")
def closed_form(split):
    return ClosedForm(draws=3).fit(split.train.images)


@pytest.fixture(scope="module")
def pixel_nn(split):
    return PixelNN().fit(split.train.images)


@pytest.fixture(scope="module")
def certified(closed_form, split):
    return certify_split(closed_form, split, PLAN)


def test_rows_name_the_percentile_under_noise_alone(closed_form, pixel_nn, split) -> None:
    certified, _ = certify_split(closed_form, split, replace(PLAN, percentile=0.3))
    attacked = attack_split(closed_form, split, replace(PLAN, percentile=0.3), **ATTACK)
    assert {one.subject.score_name for one in (*certified, *attacked)} == {"percentile=0.3"}
    plain, _ = certify_split(pixel_nn, split, replace(NONE, percentile=0.3))
    assert "percentile" not in plain[0].subject.score_name


def test_alpha_is_split_over_images_and_over_cells_when_joint(closed_form, split, certified) -> None:
    def levels(conditions):
        return {c.alpha_kind: c.alpha for c in conditions if c.condition == "certified"}

    assert levels(certified[0]) == {"total": 0.01 / 8, "per_image": 0.002}
    joint, _ = certify_split(closed_form, split, replace(PLAN, joint=True))
    # radius 0 and three sides at each of two radii
    assert levels(joint) == {"total": pytest.approx(0.01 / (8 * 7)), "per_image": 0.002}
    at_zero = replace(PLAN, joint=True, radii=(0.0, *RADII))
    assert at_zero.cells == 7
    assert PLAN.cells == 1
    # one event covers all metrics of a cell under the union bound; otherwise the AUROC and the rates are two
    assert replace(at_zero, confidence="failures").cells == 14


def test_rows_of_a_certificate_are_its_draws_reread(closed_form, split, certified) -> None:
    conditions, sizes = certified
    kinds = [(c.condition, c.alpha_kind, c.radius, c.norm, c.n) for c in conditions]
    radii = (0.0, *RADII)
    assert kinds == [
        ("clean", "", 0.0, "", 100),
        *[("certified", kind, radius, "l2", 100) for kind in ("total", "per_image") for radius in radii],
    ]
    smoothed = smooth(closed_form, PLAN)
    draws = smoothed.noisy_scores(split.test.images, range(8))
    np.testing.assert_array_equal(conditions[0].bounds.lower, percentile_scores(draws))
    bounds = certify_scores(draws, 0.5, radii, 0.01 / 8, 1.0)
    for i, condition in enumerate(conditions[1:4]):
        np.testing.assert_array_equal(condition.bounds.lower, bounds.lower[i])
        np.testing.assert_array_equal(condition.bounds.upper, bounds.upper[i])
    assert conditions[0].threshold == smoothed.calibrate(split.calibration.images[:50], 0.9)
    smoothed.alpha = 0.002
    np.testing.assert_array_equal(sizes, smoothed.radius(split.test.images, range(8), split.test.labels))
    assert {c.subject for c in conditions} == {(split.name, 8, "closed_form", "reference", "", 0.5)}


def test_way_none_draws_nothing_and_widens_the_enclosure(pixel_nn, split) -> None:
    conditions, sizes = certify_split(pixel_nn, split, NONE)
    lower, upper = pixel_nn.score_interval(split.test.images)
    assert [c.condition for c in conditions] == ["clean", *["certified"] * 3]
    for condition in conditions[1:]:
        assert (condition.alpha, condition.n, condition.subject.sigma) == (None, 0, None)
        np.testing.assert_allclose(condition.bounds.lower, lower - condition.radius, rtol=0, atol=1e-12)
        np.testing.assert_allclose(condition.bounds.upper, upper + condition.radius, rtol=0, atol=1e-12)
    scores, threshold = conditions[0].bounds.lower, conditions[0].threshold
    distance = np.where(split.test.labels == 1, scores - threshold, threshold - scores)
    np.testing.assert_allclose(sizes, np.maximum(distance, 0), atol=1e-9)


@pytest.mark.parametrize("way", ["reference", "none", ""])
def test_certified_attacked_and_clean_are_in_order(way, closed_form, pixel_nn, split, tmp_path: Path) -> None:
    detector = closed_form if way == "reference" else pixel_nn
    plan = PLAN if way == "reference" else replace(NONE, smoothing=way)
    attacked = attack_split(detector, split, plan, **ATTACK)
    assert [(c.condition, c.radius) for c in attacked] == [("clean", 0.0), ("attack", 0.05), ("attack", 0.25)]
    certified, _ = certify_split(detector, split, PLAN if way == "reference" else NONE)
    certified = [c for c in certified if c.condition == "certified"]
    manifest = build_manifest("certify", {}, data=describe_data(split), detectors={}, seeds={}, started=now())
    run = write_run(tmp_path, manifest, [*certified, *attacked])
    report = check_order([run])
    assert report.scores >= 16
    assert report.outside == 0 or way == ""
    labels = split.test.labels.numpy()
    clean = attacked[0].bounds.lower
    for weaker, stronger in pairwise(attacked):
        assert (stronger.bounds.upper >= weaker.bounds.upper).all()
        assert (stronger.bounds.lower <= weaker.bounds.lower).all()
    np.testing.assert_array_equal(attacked[-1].bounds.upper[labels == 1], clean[labels == 1])
    np.testing.assert_array_equal(attacked[-1].bounds.lower[labels == 0], clean[labels == 0])
    assert (attacked[-1].bounds.upper[labels == 0] > clean[labels == 0]).all()


def test_way_none_is_rescored_in_float64(pixel_nn, split) -> None:
    """In float32 a score could seem to leave a certificate that an attack attains."""
    exact = attack_split(pixel_nn, split, NONE, **{**ATTACK, "radii": [0.25]})
    plain = attack_split(pixel_nn, split, replace(NONE, smoothing=""), **{**ATTACK, "radii": [0.25]})
    lower, upper = pixel_nn.score_interval(split.test.images)
    np.testing.assert_array_equal(exact[0].bounds.lower, (lower + upper) / 2)
    assert (exact[0].bounds.lower != exact[0].bounds.lower.astype(np.float32)).any()
    np.testing.assert_array_equal(plain[0].bounds.lower, plain[0].bounds.lower.astype(np.float32))


def test_draws_are_kept_and_a_repeat_draws_nothing(
    closed_form, split, certified, tmp_path: Path, monkeypatch
) -> None:
    first = certify_split(closed_form, split, PLAN, store_folder=tmp_path)

    def refuse(*args):
        raise AssertionError("drew again")

    monkeypatch.setattr("certify.pool.gaussian_noise", refuse)
    again = certify_split(closed_form, split, PLAN, store_folder=tmp_path)
    for conditions, sizes in (first, again):
        np.testing.assert_array_equal(sizes, certified[1])
        for ours, known in zip(conditions, certified[0], strict=True):
            assert ours.threshold == known.threshold
            np.testing.assert_array_equal(ours.bounds.lower, known.bounds.lower)
            np.testing.assert_array_equal(ours.bounds.upper, known.bounds.upper)


def test_draws_under_other_options_are_refused_and_the_option_is_named(
    closed_form, split, tmp_path: Path
) -> None:
    few = replace(PLAN, n=50, batch_size=50)
    certify_split(closed_form, split, few, store_folder=tmp_path)
    certify_split(closed_form, split, replace(few, alpha=0.1, radii=(0.4,)), store_folder=tmp_path)
    for change, name in (({"sigma": 0.4}, "sigma was 0.5 and is now 0.4"), ({"seed": 1}, "seed was 0")):
        with pytest.raises(InputError, match=name) as error:
            certify_split(closed_form, split, replace(few, **change), store_folder=tmp_path)
        assert "\n" not in str(error.value)
    other = ClosedForm(draws=3, seed=1).fit(split.train.images)
    with pytest.raises(InputError, match="detector was"):
        certify_split(other, split, few, store_folder=tmp_path)


def test_another_purifier_is_another_score(pixel_nn, closed_form, split, tmp_path: Path) -> None:
    plan = replace(PLAN, smoothing="denoise", n=50, batch_size=50)
    one, _ = certify_split(pixel_nn, split, plan, store_folder=tmp_path, purifier=closed_form)
    assert one[0].subject.smoothing == "denoise"
    other = ClosedForm(draws=3).fit(split.train.images[:20])
    with pytest.raises(InputError, match="purifier was"):
        certify_split(pixel_nn, split, plan, store_folder=tmp_path, purifier=other)


def test_purifiers_that_cannot_serve_are_refused(pixel_nn, closed_form, split, tmp_path: Path) -> None:
    assert load_purifier(None) is None
    closed_form.save_pretrained(tmp_path / "purifier")
    pixel_nn.save_pretrained(tmp_path / "nn")
    assert load_purifier(str(tmp_path / "purifier")).name == "closed_form"
    with pytest.raises(InputError, match="need a diffusion detector"):
        load_purifier(str(tmp_path / "nn"))
    with pytest.raises(InputError, match="is a name"):
        load_purifier("closed_form")
    with pytest.raises(InputError, match="does not denoise"):
        smooth(pixel_nn, replace(PLAN, smoothing="input"), closed_form)
    with pytest.raises(InputError, match="without noise"):
        attack_split(pixel_nn, split, replace(NONE, smoothing=""), purifier=closed_form, **ATTACK)
    small = ClosedForm().fit(torch.rand(5, 1, 4, 4))
    with pytest.raises(InputError, match=r"denoises images \(1, 4, 4\)"):
        smooth(pixel_nn, replace(PLAN, smoothing="denoise"), small)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *[
            ({"sigma": 0.0}, "sigma"),
            ({"alpha": 0.5}, "alpha: got 0.5"),
            ({"alpha_per_image": 0.0}, "alpha_per_image"),
        ],
        *[({"percentile": 1.0}, "percentile"), ({"quantile": 0.0}, "quantile"), ({"n": 0}, "n: got 0")],
        *[
            ({"seed": -1}, "seed"),
            ({"batch_size": 60}, "multiple of 50"),
            ({"device": "nowhere"}, "device: 'nowhere'"),
        ],
    ],
)
def test_a_plan_out_of_range_is_refused_before_anything_is_drawn(change, message) -> None:
    with pytest.raises(InputError, match=message):
        replace(PLAN, **change)


def test_the_way_follows_what_the_detector_proves(closed_form, pixel_nn) -> None:
    assert default_smoothing(pixel_nn) == "none"
    assert default_smoothing(closed_form) == "reference"
    assert baseline_plan(pixel_nn, PLAN) == replace(PLAN, smoothing="none", sigma=None)
    assert baseline_plan(closed_form, NONE) == replace(PLAN, smoothing="reference", sigma=1.0)
    assert baseline_plan(closed_form, replace(PLAN, smoothing="input")) == PLAN


def test_baselines_are_fitted_by_name_and_the_same_each_time(split, monkeypatch) -> None:
    monkeypatch.setattr(evaluation, "BASELINES", ("pixel_mean", "pca", "pixel_nn"))
    once = evaluation.fit_baselines(split, RADII, skip={"pixel_mean"})
    again = evaluation.fit_baselines(split, RADII, skip={"pixel_mean"})
    assert [detector.name for detector in once] == ["pca", "pixel_nn"]
    assert [d.fingerprint() for d in once] == [d.fingerprint() for d in again]


def test_an_option_is_chosen_by_what_it_certifies_on_validation(split) -> None:
    chosen = fit_baseline("pca", split.train.images, split.validation, RADII)
    fitted = [PCA(n_components=count).fit(split.train.images) for count in (5, 20, 50)]
    merits = [certified_merit(pca, split.validation, RADII) for pca in fitted]
    assert chosen.n_components == (5, 20, 50)[int(np.argmax(merits))]


@pytest.mark.parametrize(("name", "side", "images"), [("pca", 4, 4), ("pca", 4, 2), ("patch_nn", 4, 4)])
def test_tiny_data_sets_have_baselines_too(name, side, images, split) -> None:
    train = torch.rand(images, 1, side, side, generator=torch.Generator().manual_seed(0))
    assert fit_baseline(name, train, split.validation, RADII).score(train).shape == (images,)


def test_adaptive_draws_serve_the_same_table_and_keep_the_order(closed_form, split, tmp_path) -> None:
    fixed, _ = certify_split(closed_form, split, PLAN)
    plan = replace(PLAN, adaptive=True, tolerance=0.0)
    found, sizes = certify_split(closed_form, split, plan, store_folder=tmp_path)
    assert sizes is None  # the draws served the AUROC alone
    assert [c.key for c in found] == [c.key for c in fixed if c.alpha_kind != "per_image"]
    values = {
        name: float(auroc(next(c for c in conditions if c.radius == RADII[0] and c.alpha_kind == "total").bounds,
                          found[0].images.labels))
        for name, conditions in (("fixed", fixed), ("adaptive", found))
    }  # fmt: skip
    assert values["adaptive"] == pytest.approx(values["fixed"], abs=0.05)
    used = json.loads((tmp_path / "samples.json").read_text())
    assert len(used["samples"]) == 8
    assert used["passes"] <= 8 * PLAN.n
    again, _ = certify_split(closed_form, split, plan, store_folder=tmp_path)
    assert all(np.array_equal(a.bounds.lower, b.bounds.lower) for a, b in zip(found, again, strict=True))


def test_adaptive_draws_make_no_statement_about_further_images() -> None:
    with pytest.raises(InputError, match="use union or failures"):
        replace(PLAN, adaptive=True, confidence="population")


@pytest.mark.parametrize("confidence", ["failures", "population"])
def test_a_confidence_of_the_whole_has_rows_of_its_own(closed_form, split, confidence) -> None:
    conditions, _ = certify_split(closed_form, split, replace(PLAN, confidence=confidence))
    kinds = {c.alpha_kind: c.alpha for c in conditions if c.condition == "certified"}
    assert kinds == {confidence: PLAN.alpha, "per_image": PLAN.alpha_per_image}


def test_nan_draws_count_against_the_detector_and_too_many_are_refused() -> None:
    draws = np.array([[1.0, 2.0, np.nan], [1.0, 2.0, np.nan]])
    assert clean_estimates(draws, np.array([0, 1]), 0.5).tolist() == [2.0, 1.0]
    with pytest.raises(InputError, match="image 1: 2 of 3 noisy scores are NaN"):
        clean_estimates(np.array([[1.0, 2.0, 3.0], [1.0, np.nan, np.nan]]), np.array([0, 1]), 0.5)


def test_a_compiled_network_is_recorded_and_one_that_is_not_there_refused(
    closed_form, split, tmp_path, monkeypatch
) -> None:
    plan = replace(PLAN, compile=True)
    with pytest.raises(InputError, match="no network to compile; leave --compile out"):
        certify_split(closed_form, split, plan)
    compiled = []
    monkeypatch.setattr(type(closed_form), "compile_network", lambda detector: compiled.append(detector))
    certify_split(closed_form, split, plan, store_folder=tmp_path)
    assert compiled == [closed_form]
    with pytest.raises(InputError, match="compile was True and is now 'absent'"):
        certify_split(closed_form, split, PLAN, store_folder=tmp_path)
    assert baseline_plan(closed_form, plan).compile is False
