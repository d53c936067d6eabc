from __future__ import annotations

import numpy as np
import pytest

from certify.checks import InputError
from certify.composition import Batch, Composition, check_indices


def test_one_image_a_batch() -> None:
    plan = Composition.of([5, 3], 100)
    assert plan.draws_per_batch == 100
    assert list(plan.batches(1, 101)) == [Batch((1,), range(0, 2)), Batch((1,), range(2, 4))]
    assert list(plan.batches(0, 1)) == [Batch((0,), range(0, 2))]


def test_images_of_consecutive_indices_share_a_batch_in_the_order_of_their_indices() -> None:
    plan = Composition.of([7, 4, 6, 5], 400, images_per_batch=4)
    assert plan.draws_per_batch == 100
    assert plan.groups == ((1, 3, 2, 0),) * 4
    assert list(plan.batches(2, 150)) == [Batch((1, 3, 2, 0), range(0, 2)), Batch((1, 3, 2, 0), range(2, 4))]


def test_a_missing_image_is_filled_by_the_first_of_its_group_and_moves_no_other() -> None:
    assert Composition.of([1, 2, 3], 200, images_per_batch=2).groups == ((0, 0), (1, 2), (1, 2))
    assert Composition.of([6, 5], 150, images_per_batch=3).groups == ((0, 0, 0), (1, 1, 1))


def test_equal_indices_are_fine_in_batches_of_their_own() -> None:
    assert Composition.of([2, 2], 50).groups == ((0,), (1,))
    with pytest.raises(InputError, match="twice"):
        Composition.of([2, 2], 100, images_per_batch=2)


@pytest.mark.parametrize(
    ("batch_size", "images", "message"),
    [
        (120, 1, "multiple of 50, the size of a noise chunk"),
        (0, 1, "multiple of 50"),
        (150, 2, "multiple of 100, the size of a noise chunk for each of 2 images"),
        (100, 0, "images_per_batch: got 0"),
    ],
)
def test_batches_that_do_not_divide_are_refused(batch_size: int, images: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Composition.of([0], batch_size, images)


def test_indices_are_whole_numbers_one_an_image() -> None:
    assert check_indices(range(3), 3) == [0, 1, 2]
    for indices in ([0, 1], [0, 1, -1], np.array([0.0, 1.0, 2.0])):
        with pytest.raises(Exception, match="indices"):
            check_indices(indices, 3)
