import numpy as np
import pytest

from diffad import detector_class
from diffad.attack_evaluation import AttackOptions, attack_detector, material_of
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


def test_under_noise_the_references_are_left_to_the_attack(split):
    """Each would cost a percentile."""
    options = AttackOptions(norm="l2", radii=[1.0])
    references = material_of(split, PLAIN, options).references
    assert references is not None
    assert len(references) == len(split.train) + len(split.test)
    assert material_of(split, NOISY, options).references is None
