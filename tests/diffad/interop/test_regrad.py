"""No spelling of `detach` takes a tensor out of its graph while it is held there."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from diffad.interop.regrad import attached


@pytest.mark.parametrize("taken_out", [Tensor.detach, torch.detach, lambda tensor: tensor.data])
def test_a_tensor_stays_in_its_graph(taken_out: Callable[[Tensor], Tensor]) -> None:
    leaf = torch.ones(3, requires_grad=True)
    with attached():
        taken_out(2 * leaf).sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.tolist() == [2.0, 2.0, 2.0]
    assert not taken_out(2 * leaf).requires_grad  # outside it is what it was
