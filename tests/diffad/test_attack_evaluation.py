from dataclasses import replace

import numpy as np
import pytest
import torch

from certify.smoothing import SmoothedDetector
from diffad import detector_class
from diffad.attack_evaluation import (
    NOISY_REFERENCES,
    AttackOptions,
    attack_detector,
    material_of,
    victim_of,
)
from diffad.data import load_data
from diffad.plan import Plan

PLAIN = Plan(smoothing="", sigma=None, radii=(1.0,))
NOISY = Plan(smoothing="input", sigma=0.25, radii=(1.0,))


@pytest.fixture(scope="module")
def split():
    return load_data("digits", normal_class="8", resolution=8, limit=4)


def test_where_any_image_may_be_shown_a_normal_of_the_training_hides_every_anomaly(split):
    """The floor of a nearest-neighbour distance is 0, at the bank itself: no other image reaches it exactly."""
    detector = detector_class("pixel_nn")().fit(split.train.images)
    options = AttackOptions(norm="linf", radii=[1.0], method="feature_target", steps=1)
    (reached,) = attack_detector(detector, split, PLAIN, options)
    anomalous = reached.found.labels == 1
    assert anomalous.sum() == 4
    np.testing.assert_array_equal(reached.found.scores[anomalous], 0.0)


def test_under_noise_fewer_normals_serve_as_references(split):
    """Each costs a percentile."""
    options = AttackOptions(norm="l2", radii=[1.0])
    plain, noisy = (material_of(split, plan, options).references for plan in (PLAIN, NOISY))
    assert plain is not None
    assert noisy is not None
    assert len(plain) == len(split.train) + len(split.test)
    assert len(noisy) == NOISY_REFERENCES + len(split.test)
    torch.testing.assert_close(noisy[:NOISY_REFERENCES], split.train.images[:NOISY_REFERENCES])


def test_under_noise_too_it_reaches_the_floor_of_the_normals_in_training(split):
    detector = detector_class("pixel_nn")().fit(split.train.images)
    options = AttackOptions(norm="linf", radii=[1.0], method="square_target", steps=2)
    plan = replace(NOISY, n=50, batch_size=500)
    (reached,) = attack_detector(detector, split, plan, options)
    victim = victim_of(detector, plan)
    assert isinstance(victim, SmoothedDetector)
    known = victim.score(split.train.images[:NOISY_REFERENCES], range(NOISY_REFERENCES), "evaluate")
    anomalous = reached.found.labels == 1
    assert (reached.found.scores[anomalous] <= known.max()).all()
    assert (reached.clean > known.max()).all()  # no attacked image leads there
