"""Float32 that is float32: on a GPU convolutions would be rounded to TF32, ten bits, and differ from run to run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one CPU thread, then on as many as before: a decomposition has other bits on other numbers of them.

    Not for several Python threads at once.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def exact_float32() -> Iterator[None]:
    """Compute float32 convolutions in float32 and repeatably; also a decorator, worn by the commands that judge scores.

    In TF32 the score of an image depends on the make-up of its batch by about 1e-3, so an attacked score, a stored draw
    or a threshold would not be found again. Matrix products are float32 unless somebody lowered them, which manifests
    name (`float32_matmul`). What was set before is put back. Nothing changes on a CPU, nor under autocast.
    """
    cudnn = torch.backends.cudnn
    with cudnn.flags(enabled=cudnn.enabled, benchmark=False, deterministic=True, allow_tf32=False):
        yield
