"""Properties of keyed draws: what is asked when, and in what company, changes no number."""

from __future__ import annotations

import tempfile

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from certify.noise import NOISE_CHUNK, gaussian_noise
from certify.pool import DrawPool, sampling_config
from certify.store import ScoreStore

quick = settings(max_examples=40, deadline=None)
INDICES = [0, 1, 2, 5, 8]
SHAPE = (1, 2, 2)
KEY = {"sigma": 0.5, "seed": 3, "purpose": "certify"}
IMAGES = torch.rand(len(INDICES), *SHAPE, generator=torch.Generator().manual_seed(0))

orders = st.permutations(range(len(INDICES)))
compositions = st.sampled_from([(50, 1), (100, 1), (150, 3), (100, 2), (400, 4)])
asks = st.lists(
    st.dictionaries(st.integers(0, len(INDICES) - 1), st.integers(1, 330), min_size=1), min_size=1, max_size=4
)


def corner(clean: Tensor, noisy: Tensor) -> Tensor:
    return noisy[:, 0, 1, 1]


def expected(row: int, n: int) -> np.ndarray:
    """The scores by their definition, without batches."""
    chunks = [
        gaussian_noise(3, INDICES[row], "certify", c, (NOISE_CHUNK, *SHAPE)) for c in range(-(-n // 50))
    ]
    noisy = IMAGES[row].double().numpy() + 0.5 * np.concatenate(chunks)
    return noisy.astype(np.float32)[:n, 0, 1, 1].astype(np.float64)


@quick
@given(orders, asks, st.lists(compositions, min_size=2, max_size=2), st.booleans())
def test_draws_are_a_function_of_image_and_number_alone(
    order: list[int], asked: list[dict[int, int]], shapes: list[tuple[int, int]], interrupted: bool
) -> None:
    """Whatever the order, the steps, the batches, and a store with what another run left."""
    for batch_size, images_per_batch in shapes:
        options = {**KEY, "batch_size": batch_size, "images_per_batch": images_per_batch}
        with tempfile.TemporaryDirectory() as folder:
            for steps in (asked[:1], asked) if interrupted else (asked,):
                config = {**sampling_config(**options), "detector": "corner"}
                store = ScoreStore(folder, config) if interrupted else None
                pool = DrawPool(
                    corner, IMAGES[order], [INDICES[row] for row in order], store=store, **options
                )
                most: dict[int, int] = {}
                for targets in steps:
                    pool.extend(targets)
                    most = {place: max(most.get(place, 0), targets.get(place, 0)) for place in most | targets}
                for place, n in most.items():
                    assert np.array_equal(pool.draws(place), expected(order[place], n))
                assert pool.passes % batch_size == 0
                assert pool.passes >= images_per_batch * max(most.values())
