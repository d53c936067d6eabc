from __future__ import annotations

import time

import pytest
import torch

from certify.checks import InputError
from diffad.data.source import Pool


def test_records_keep_the_order_of_the_places():
    def read(place: int):
        time.sleep(0.002 * (5 - place))  # the first is ready last
        return torch.full((1, 4, 4), place / 10), None

    pool = Pool(tuple("abcde"), ("x", "x", "y", "y", "y"), read, (None, "g", None, None, None))
    records = pool.records([4, 1, 3], anomalous=True, prefix="set/")
    assert [r.identifier for r in records] == ["e", "b", "d"]
    assert [round(float(r.image.mean()) * 10) for r in records] == [4, 1, 3]
    assert [r.defect for r in records] == ["set/y", "set/x", "set/y"]
    assert [r.group for r in records] == [None, "g", None]
    assert all(r.mask is None for r in records)


def test_normals_have_an_empty_mask():
    pool = Pool(("a",), ("good",), lambda place: (torch.zeros(1, 4, 4), None))
    [record] = pool.records([0], anomalous=False)
    assert record.defect == "good"
    assert not record.mask.any()


def test_a_bad_file_stops_the_reading():
    seen = []

    def read(place: int):
        seen.append(place)
        if place == 3:
            raise InputError("003.png: damaged")
        time.sleep(0.001)
        return torch.zeros(1, 4, 4), None

    pool = Pool(tuple(map(str, range(500))), ("x",) * 500, read)
    with pytest.raises(InputError, match=r"003\.png: damaged"):
        pool.records(range(500), anomalous=False)
    assert len(seen) < 400
