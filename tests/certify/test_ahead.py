from __future__ import annotations

import threading
import time
from contextlib import closing

import pytest

from certify.ahead import AHEAD, made_ahead


def workers() -> int:
    return sum(thread.name.startswith("ahead") for thread in threading.enumerate())


def test_items_come_in_order_from_another_thread() -> None:
    made = list(made_ahead(lambda item: (item, threading.current_thread().name), range(10)))
    assert [item for item, _ in made] == list(range(10))
    assert all(name.startswith("ahead") for _, name in made)
    assert workers() == 0
    assert list(made_ahead(str, [])) == []


def test_no_more_is_made_than_the_next_few() -> None:
    made: list[int] = []
    with closing(made_ahead(made.append, range(100))) as results:
        for taken, _ in enumerate(results, start=1):
            time.sleep(0.002)
            assert len(made) <= taken + AHEAD
            if taken == 20:
                break
    assert len(made) <= 20 + AHEAD + 1
    assert workers() == 0


def test_work_goes_on_while_the_consumer_is_busy() -> None:
    second = threading.Event()

    def make(item: int) -> int:
        if item == 1:
            second.set()
        return item

    with closing(made_ahead(make, range(5))) as results:
        assert next(results) == 0
        assert second.wait(timeout=10)


def test_an_exception_is_raised_at_its_item_and_the_thread_ends() -> None:
    def make(item: int) -> int:
        if item == 3:
            raise ValueError("three")
        return item

    results = made_ahead(make, range(10))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)
    assert workers() == 0


def test_a_consumer_that_stops_early_leaves_no_thread() -> None:
    results = made_ahead(str, range(1000))
    assert next(results) == "0"
    assert workers() == 1
    results.close()
    assert workers() == 0
