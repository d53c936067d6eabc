from __future__ import annotations

import sys

import numpy as np
import pytest

from certify.checks import InputError
from diffad.conditions import Subject
from diffad.examples import Examples, choose_examples
from diffad.plots import DARK, curves, distributions, example_figure, gap, headline, pick_radius, png
from diffad.plots.localisation import localisation_figure
from diffad.plots.style import LIGHT
from diffad.results import write_run


@pytest.fixture
def run(tmp_path, synthetic):
    return synthetic.run(tmp_path / "run", detector="diffusion", smoothing="reference")


def test_curves_hold_certified_and_attacked_values_by_radius(run):
    (curve,) = curves([run])
    assert curve.certified[0].tolist() == [0.0, 0.1, 0.25, 0.5]
    assert curve.attacked[0].tolist() == [0.0, 0.1, 0.25]
    assert curve.attacked[1][0] == curve.clean
    assert (np.diff(curve.certified[1]) <= 0).all()


def test_the_gap_lies_where_both_curves_do_and_never_turns_over(run):
    (curve,) = curves([run])
    radii, low, high = gap(curve)
    assert radii.tolist() == [0.0, 0.1, 0.25]
    assert (low <= high).all()


def test_the_headline_has_all_curves_and_the_line_at_one_half(run, tmp_path, synthetic):
    other = synthetic.run(tmp_path / "other", detector="pixel_nn")
    figure = headline([run, other])
    words = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert "diffusion (l2), reference, σ = 1" in words
    assert "pixel_nn (l2)" in words
    assert any("a constant score certifies .5" in text.get_text() for text in figure.axes[0].texts)
    assert len(figure.axes[0].collections) == 2  # two shaded gaps


def test_the_legend_explains_what_is_drawn_and_no_more(run, tmp_path):
    def keys(shown):
        return [text.get_text().split(":")[0] for text in headline([shown]).legends[1].get_texts()]

    clean, certified = (run.of(run.subjects[0], condition) for condition in ("clean", "certified"))
    assert keys(run) == ["attacked", "certified", "clean", "not known"]
    assert keys(write_run(tmp_path / "certified", run.manifest, [*clean, *certified])) == [
        "certified",
        "clean",
    ]


def test_two_trainings_of_one_detector_are_told_apart(run, tmp_path, synthetic):
    other = synthetic.run(tmp_path / "second", detector="diffusion", smoothing="reference", seed=1)
    other = write_run(
        tmp_path / "second",
        {**other.manifest, "detectors": {"diffusion": "x"}},
        other.conditions,
        replace=True,
    )
    assert [c.label.split(" [")[1] for c in curves([run, other])] == ["run]", "second]"]


def test_many_curves_shade_the_trained_ones_only(run, tmp_path, synthetic):
    names = ("pixel_mean", "pca", "pixel_nn", "patch_nn")
    others = [synthetic.run(tmp_path / name, detector=name) for name in names]
    assert len(headline([*others, run]).axes[0].collections) == 1


def test_a_legend_of_many_rows_stands_beside_the_axes_and_inside_the_figure(run, tmp_path, synthetic):
    others = [
        synthetic.run(tmp_path / f"{i}", detector=f"callable:my_scores.number_{i}", smoothing="input")
        for i in range(13)
    ]
    figure = headline([*others, run])
    figure.draw_without_rendering()
    (width, height), axes = figure.get_size_inches() * figure.dpi, figure.axes[0].get_window_extent()
    boxes = [legend.get_window_extent() for legend in figure.legends]
    assert all(0 <= box.x0 < box.x1 <= width and 0 <= box.y0 < box.y1 <= height for box in boxes)
    assert boxes[0].x0 > axes.x1  # who, beside
    assert boxes[1].y1 < axes.y0  # what, below
    assert axes.width > 4 * figure.dpi
    lines = figure.legends[0].get_lines()
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == len(lines) == 14


@pytest.mark.parametrize(
    "draw", [lambda run: headline([run]), lambda run: distributions(run, run.subjects[0])]
)
def test_figures_become_png_files_in_both_themes(draw, run):
    assert png(draw(run)).startswith(b"\x89PNG")


def test_figures_draw_infinite_bounds_and_the_dark_theme(run):
    figure = distributions(run, run.subjects[0], radius=0.5, theme=DARK)
    assert np.isfinite(figure.axes[1].get_ylim()).all()
    assert png(figure)


def test_pyplot_is_never_touched(run):
    sys.modules.pop("matplotlib.pyplot", None)
    png(headline([run]))
    assert "matplotlib.pyplot" not in sys.modules


def test_missing_matplotlib_is_named_with_the_remedy(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match=r"pip install diffad\[plots\]"):
        headline([run])


def test_the_radius_shown_certifies_something_and_was_attacked(run):
    assert pick_radius(run, run.subjects[0]) == 0.25


def test_examples_are_spread_over_the_scores_of_each_class(run):
    (clean,) = run.of(run.subjects[0], "clean")
    chosen = choose_examples(clean, each=3)
    assert clean.images.labels[chosen].tolist() == [0, 0, 0, 1, 1, 1]
    normals = clean.bounds.lower[:20]
    assert chosen[0] == normals.argmin()
    assert chosen[2] == normals.argmax()


def test_examples_show_what_exists_and_refuse_unknown_images(run):
    pictures = np.random.default_rng(0).random((2, 3, 8, 8), dtype=np.float32)
    examples = Examples(run.subjects[0], np.array([0, 39]), pictures, None, pictures[:, 0])
    figure = example_figure(run, examples)
    titles = [axes.get_title() for axes in figure.axes]
    assert "anomaly map" in titles
    assert "reconstruction" not in titles
    assert png(figure)
    with pytest.raises(InputError, match="image 999"):
        example_figure(run, Examples(run.subjects[0], np.array([999]), pictures[:1], None, None))


def test_a_run_without_l2_results_has_no_headline(run, tmp_path):
    clean = write_run(tmp_path / "clean", run.manifest, run.of(run.subjects[0], "clean"))
    with pytest.raises(InputError, match="run certify first"):
        headline([clean])
    with pytest.raises(InputError, match="no clean scores"):
        distributions(run, Subject("digits:8", 16, "pca", "none", "", None))


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_a_dozen_curves_have_a_dozen_colours(theme) -> None:
    assert len(set(theme.series)) == len(theme.series) == 12


def test_maps_of_a_figure_share_one_scale_and_rows_have_names() -> None:
    rng = np.random.default_rng(0)
    images, masks = rng.random((3, 1, 6, 6)), rng.random((3, 6, 6)) > 0.8
    maps = {"clean": rng.random((3, 6, 6)), "attacked": 2 * rng.random((3, 6, 6))}
    figure = localisation_figure(images, masks, maps, ["normal", "spot", "edge"])
    panels = [axes for axes in figure.axes if axes.get_images()]
    assert len(panels) == 3 * 4
    assert [axes.get_title() for axes in panels[:4]] == ["image", "defect", "clean", "attacked"]
    assert [axes.get_ylabel() for axes in panels[::4]] == ["normal", "spot", "edge"]
    assert len({axes.get_images()[0].get_clim() for axes in panels if axes.get_title() in maps}) == 1
    for wrong in (
        (images[:0], masks, maps, []),
        (images, masks, {}, ["a"] * 3),
        (images, masks, maps, ["a"]),
    ):
        with pytest.raises(InputError, match="need some of each"):
            localisation_figure(*wrong)
