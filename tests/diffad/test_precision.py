from __future__ import annotations

import torch

from diffad.precision import exact_float32


def test_float32_is_exact_inside_and_as_before_outside() -> None:
    cudnn = torch.backends.cudnn
    before = cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32

    @exact_float32()
    def inside() -> tuple[bool, bool, bool]:
        return cudnn.enabled, cudnn.deterministic, cudnn.allow_tf32

    assert inside() == inside() == (before[0], True, False)
    assert (cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32) == before
