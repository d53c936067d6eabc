"""What `certify` says in the end: the detector, what beats it, and what to try."""

import pytest

from diffad.conclusion import conclusion

BASE = {"alpha_kind": "total", "n": 100, "norm": "l2"}


def clean(detector: str, auroc: float) -> dict:
    return {
        **BASE,
        "detector": detector,
        "condition": "clean",
        "radius": 0.0,
        "side": "clean",
        "auroc": auroc,
    }


def certified(detector: str, *aurocs: float) -> list[dict]:
    shared = {**BASE, "detector": detector, "condition": "certified", "side": "both"}
    return [
        {**shared, "radius": radius, "auroc": auroc}
        for radius, auroc in zip((0.0, 0.1, 0.25), aurocs, strict=True)
    ]


def test_the_detector_and_what_certifies_more_than_it():
    rows = [clean("diffusion", 0.98), *certified("diffusion", 0.97, 0.85, 0.41)]
    rows += [clean("pca", 0.9), *certified("pca", 0.9, 0.8, 0.7)]
    rows += [clean("pixel_nn", 0.9), *certified("pixel_nn", 0.9, 0.8, 0.6)]
    assert conclusion(rows, "diffusion").splitlines() == [
        "in short: diffusion, AUROC 0.980 clean; certified at L2: 0.850 at 0.1, nothing certified at 0.25",
        "more is certified by pca 0.700 at 0.25",
    ]


@pytest.mark.parametrize(
    ("auroc", "proved", "advice"),
    [
        (0.39, 0.2, "no better than a coin"),
        (0.55, 0.2, "hardly better than a coin"),
        (0.58, 0.55, None),
        (0.9, 0.49, "try smaller ones"),
        (0.9, 0.51, None),
    ],
)
def test_where_it_comes_to_nothing_there_is_advice(auroc: float, proved: float, advice: str | None):
    rows = [clean("diffusion", auroc), *certified("diffusion", auroc, proved, 0.1)]
    rows += certified("pixel_mean", 0.5, 0.5, 0.4)  # not worth a word
    text = conclusion(rows, "diffusion")
    assert "pixel_mean" not in text
    if advice is None:
        assert len(text.splitlines()) == 1
    else:
        assert advice in text


def test_without_a_certificate_above_zero_there_is_nothing_to_say():
    assert conclusion([clean("diffusion", 0.9)], "diffusion") == ""
    assert conclusion([clean("diffusion", 0.9), certified("diffusion", 0.9, 0.8, 0.7)[0]], "diffusion") == ""
