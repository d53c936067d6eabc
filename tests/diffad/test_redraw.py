from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from diffad.redraw import keyed_sample


@given(st.integers(1, 2000), st.floats(0.001, 1.0), st.integers(0, 2**63 - 1))
def test_a_keyed_sample_is_a_share_of_distinct_places(count, share, key) -> None:
    chosen = keyed_sample(count, share, key)
    assert chosen == keyed_sample(count, share, key)
    assert len(chosen) == len(set(chosen)) == min(count, max(1, int(np.ceil(share * count))))
    assert set(chosen) <= set(range(count))


def test_every_place_may_be_chosen() -> None:
    assert {keyed_sample(10, 0.01, key)[0] for key in range(200)} == set(range(10))
