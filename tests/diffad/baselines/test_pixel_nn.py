from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from certify.checks import InputError
from diffad.baselines.pixel_nn import PixelNN
from diffad.neighbours import nearest

TRAIN = torch.rand(25, 1, 5, 5, generator=torch.Generator().manual_seed(0))
IMAGES = torch.rand(8, 1, 5, 5, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("k", [1, 3])
def test_score_is_the_sum_of_k_distances(k: int) -> None:
    search = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(TRAIN.flatten(1).double())
    wanted = search.kneighbors(IMAGES.flatten(1).double())[0].sum(1)
    np.testing.assert_allclose(PixelNN(k).fit(TRAIN).score(IMAGES), wanted, rtol=1e-6)


@pytest.mark.parametrize("k", [1, 3])
def test_the_map_is_the_difference_to_the_neighbours(k: int) -> None:
    train, images = (torch.rand(n, 3, 5, 4, generator=torch.Generator().manual_seed(n)) for n in (25, 6))
    detector = PixelNN(k).fit(train)
    found = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(train.flatten(1).double())
    places = found.kneighbors(images.flatten(1).double())[1]
    wanted = np.stack([(images - train[column]).norm(dim=1) for column in places.T]).mean(0)
    maps = detector.anomaly_map(images)
    np.testing.assert_allclose(maps, wanted, rtol=1e-5)
    if k == 1:
        np.testing.assert_allclose(maps.flatten(1).norm(dim=1), detector.score(images), rtol=1e-6)


def test_images_of_the_bank_are_known_again() -> None:
    detector = PixelNN().fit(TRAIN)
    assert detector.in_bank(torch.cat([IMAGES, TRAIN[3:5], TRAIN[:1] + 1e-6])) == [8, 9]
    assert PixelNN().fit(IMAGES).in_bank(TRAIN) == []


def test_interval_holds_the_distance_of_rational_arithmetic() -> None:
    images = torch.cat([IMAGES, TRAIN[:2], (TRAIN[:2] + 1e-6).clamp(0, 1)])
    lower, upper = PixelNN().fit(TRAIN).score_interval(images)
    bank = [[Fraction(v) for v in row] for row in TRAIN.flatten(1).tolist()]
    for image, low, high in zip(images.flatten(1).tolist(), lower, upper, strict=True):
        pixels = [Fraction(v) for v in image]
        square = min(
            sum(((a - b) ** 2 for a, b in zip(pixels, row, strict=True)), Fraction(0)) for row in bank
        )
        assert Fraction(low) ** 2 <= square <= Fraction(high) ** 2
    assert upper[8:10].tolist() == [0.0, 0.0]


def test_interval_holds_when_the_search_mistakes_the_neighbour() -> None:
    # images that differ in the last bits of float32 only: multiples of 2^-24, so int64 is exact
    generator = torch.Generator().manual_seed(2)
    bank, queries = (torch.randint(0, 4, (n, 1, 24, 24), generator=generator) + 2**24 - 4 for n in (300, 40))
    detector = PixelNN().fit(bank / 2**24)
    lower, upper = detector.score_interval(queries / 2**24)
    squares = (queries.flatten(1)[:, None] - bank.flatten(1)).square().sum(2)
    exact = squares.amin(1)
    _, found = nearest((queries / 2**24).flatten(1), detector.bank)
    assert bool((squares.gather(1, found)[:, 0] > exact).any())
    for square, low, high in zip(exact.tolist(), lower, upper, strict=True):
        assert Fraction(low) ** 2 <= Fraction(square, 2**48) <= Fraction(high) ** 2


def test_interval_of_a_sum_holds_the_careful_sum() -> None:
    lower, upper = PixelNN(k=4).fit(TRAIN).score_interval(IMAGES)
    for image, low, high in zip(IMAGES, lower, upper, strict=True):
        exact = sorted(math.dist(image.flatten().tolist(), row.flatten().tolist()) for row in TRAIN)[:4]
        assert low <= math.fsum(exact) <= high


def test_the_constant_k_is_attained() -> None:
    detector = PixelNN(k=3).fit(torch.full((3, 1, 4, 4), 0.5))
    near, far = torch.full((1, 1, 4, 4), 0.6), torch.full((1, 1, 4, 4), 0.9)
    assert detector.lipschitz == 3.0
    torch.testing.assert_close((detector.score(far) - detector.score(near))[0], 3 * (far - near).norm())


def test_a_bank_smaller_than_k_is_refused() -> None:
    with pytest.raises(InputError, match="got 4 training images, need at least 5"):
        PixelNN(k=5).fit(TRAIN[:4])
    with pytest.raises(InputError, match="k = 0"):
        PixelNN(k=0)


def test_the_bank_is_a_copy() -> None:
    train = TRAIN.clone()
    detector = PixelNN().fit(train)
    train.zero_()
    assert float(detector.score(TRAIN[:1])) == 0.0
