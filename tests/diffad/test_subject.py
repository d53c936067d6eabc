from __future__ import annotations

from diffad.baselines.pixel_nn import PixelNN
from diffad.interop import SklearnDetector
from diffad.subject import (
    Subject,
    beside_name,
    entry_name,
    folder_name,
    number_text,
    smoothed_name,
    sum_of_levels,
)


def test_a_sum_of_levels_is_named_by_its_score_and_read_back() -> None:
    name = sum_of_levels("l2 fit_sigma=0.25", (0.1, 1.0, 2.5))
    assert name == "l2 fit_sigma=0.25 sum_sigma=0.1,1,2.5"
    summed = Subject("digits:8", 8, "diffusion", "reference", name, 2.5)
    assert summed.sigmas == (0.1, 1.0, 2.5)
    assert summed.label == "diffusion (l2 fit_sigma=0.25), reference, σ = 0.1 + 1 + 2.5"
    plain = Subject("digits:8", 8, "closed_form", "reference", sum_of_levels("", (1 / 3, 1.0)), 1.0)
    assert plain.sigmas == (1 / 3, 1.0)
    assert plain.label == "closed_form, reference, σ = 0.333333 + 1"


def test_the_median_goes_without_saying_and_no_other_percentile_does() -> None:
    assert (smoothed_name("l2", 0.5, False), smoothed_name("", 0.5, False)) == ("l2", "")
    name = smoothed_name("l2", 0.3, True)
    assert name == "l2 percentile=0.3 grid"
    assert Subject("digits:8", 8, "diffusion", "input", name, 0.5).label == (
        "diffusion (l2 percentile=0.3 grid), input, σ = 0.5"
    )
    summed = Subject(
        "digits:8", 8, "pca", "input", sum_of_levels(smoothed_name("", 0.3, False), (0.5, 1.0)), 1.0
    )
    assert summed.sigmas == (0.5, 1.0)
    assert summed.label == "pca (percentile=0.3), input, σ = 0.5 + 1"


def test_one_level_and_none_have_no_list_of_levels() -> None:
    one = Subject("digits:8", 8, "diffusion", "reference", "l2", 0.5)
    assert (one.sigmas, one.noise, one.label) == ((), "0.5", "diffusion (l2), reference, σ = 0.5")
    none = Subject("digits:8", 8, "pixel_nn", "none", "", None)
    assert (none.sigmas, none.noise, none.label) == ((), "", "pixel_nn")


def test_numbers_are_written_in_as_few_digits_as_give_them_back() -> None:
    assert [number_text(value) for value in (1.0, 0.5, 0.1 + 0.2)] == ["1", "0.5", "0.30000000000000004"]


def test_a_network_free_row_beside_its_own_detector_has_an_entry_of_its_own() -> None:
    plain = Subject("digits:8", 8, "pca", "none", "", None)
    noisy = plain._replace(smoothing="input", sigma=0.25)
    assert beside_name("pca", "none") == "pca, none"
    both = {"pca": "one", "pca, none": "other"}
    assert [entry_name(subject, both) for subject in (plain, noisy)] == ["pca, none", "pca"]
    assert entry_name(plain._replace(smoothing=""), both) == "pca, none"  # the same score, attacked
    assert [entry_name(subject, {"pca": "one"}) for subject in (plain, noisy)] == ["pca", "pca"]


def test_two_models_of_one_library_are_two_rows_and_name_their_model_once() -> None:
    foreign = Subject("digits:8", 8, "anomalib:Patchcore", "none", "Patchcore", None)
    assert foreign.label == "anomalib:Patchcore"
    noisy = foreign._replace(score_name="Patchcore fit_sigma=0.15", smoothing="input", sigma=0.15)
    assert noisy.label == "anomalib:Patchcore (fit_sigma=0.15), input, σ = 0.15"
    recorded = foreign._replace(detector="anomalib")  # by versions that named the library alone
    assert recorded.label == "anomalib (Patchcore)"
    assert folder_name(foreign.detector) == "anomalib-Patchcore"
    assert SklearnDetector("IsolationForest").row_name == "sklearn:IsolationForest"
    assert PixelNN().row_name == "pixel_nn"
