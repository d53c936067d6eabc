"""Splits kept in memory, for a process that runs many commands on the same few data sets.

>>> from diffad.data import load_data
>>> with splits_kept():
...     load_data("digits", normal_class=8) is load_data("digits", normal_class=8)
True
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from certify.checks import InputError
from diffad.data.split import DataSplit

Splits = OrderedDict[Hashable, DataSplit]
_KEPT: ContextVar[tuple[Splits, int] | None] = ContextVar("kept splits", default=None)


@contextmanager
def splits_kept(most: int = 3) -> Iterator[None]:
    """Inside, `load_data` returns the same object for the same arguments, of the last `most` different ones.

    Off by default: files that change while the process runs are not noticed, and a split of 50 000 small images takes
    about 1 GB.
    """
    if most < 1:
        raise InputError(f"most: got {most}, need at least 1")
    token = _KEPT.set((OrderedDict(), most))
    try:
        yield
    finally:
        _KEPT.reset(token)


def kept(request: Hashable, read: Callable[[], DataSplit]) -> DataSplit:
    """Return what `read` returned for this request inside the current `splits_kept`, or read it."""
    state = _KEPT.get()
    if state is None:
        return read()
    splits, most = state
    if request not in splits:
        splits[request] = read()
    splits.move_to_end(request)
    while len(splits) > most:
        splits.popitem(last=False)
    return splits[request]
