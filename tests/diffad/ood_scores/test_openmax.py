from __future__ import annotations

import numpy as np
import torch
from scipy.stats import weibull_min

from diffad.backbones import Backbone
from diffad.ood_scores import OpenMax
from diffad.ood_scores.weibull import TRANSLATION

TRAIN = torch.rand(90, 1, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = ["abc"[i % 3] for i in range(90)]


def unknown_probability(detector: OpenMax, logits: np.ndarray) -> float:
    """The algorithm of the paper, image by image and class by class."""
    share = np.zeros(len(logits))
    order = np.argsort(-logits)[: detector.top_classes]
    for rank, k in enumerate(order, start=1):
        shape, log_scale, least = detector.laws[k].tolist()
        distance = np.linalg.norm(logits - detector.centres[k].numpy())
        w = weibull_min.cdf(distance - least + TRANSLATION, shape, scale=np.exp(log_scale))
        share[k] = (w if detector.known[k] else 1.0) * (len(order) + 1 - rank) / len(order)
    unknown, others = np.exp((logits * share).sum()), np.exp(logits * (1 - share))
    return float(unknown / (unknown + others.sum()))


def test_the_score_is_the_log_odds_of_the_papers_probability(backbone: Backbone) -> None:
    for options in ({}, {"top_classes": 2, "tail_size": 10}):
        detector = OpenMax.from_backbone(backbone, **options).fit_labelled(TRAIN, LABELS)
        logits = 3 * torch.randn(30, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        expected = [unknown_probability(detector, row) for row in logits.numpy()]
        found = torch.sigmoid(detector.unknown_log_odds(logits))
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9)


def test_a_class_without_images_gives_all_it_has_away(backbone: Backbone) -> None:
    detector = OpenMax.from_backbone(backbone).fit_labelled(TRAIN, ["abc"[i % 2] for i in range(90)])
    logits = torch.tensor([[0.0, 0.0, 4.0]], dtype=torch.float64)
    assert detector.too_far(logits)[0, 2] == 1.0
    assert torch.sigmoid(detector.unknown_log_odds(logits)).item() > 0.9


def test_gradients_stay_finite_and_never_vanish_far_away(backbone: Backbone) -> None:
    detector = OpenMax.from_backbone(backbone).fit_labelled(TRAIN, LABELS)
    for size in (0.0, 1.0, 1e3):
        logits = (size * torch.randn(20, 3, generator=torch.Generator().manual_seed(1))).requires_grad_()
        (gradient,) = torch.autograd.grad(detector.unknown_log_odds(logits).sum(), logits)
        assert bool(torch.isfinite(gradient).all())
        assert bool((gradient.abs().amax(1) > 0).all())
