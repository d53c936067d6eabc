"""Scores in float64 by turning their modules, and everything as it was afterwards."""

from __future__ import annotations

from functools import partial

import broken
import pytest
import torch
from torch import nn

from diffad.attacks.checks.precision import in_float64, modules_behind


def test_modules_are_found_behind_methods_closures_partials_and_containers():
    inner = nn.Linear(2, 2)

    def score(images, shift=0.0):
        return inner(images) + shift

    class Holder:
        def __init__(self, held):
            self.held = {"score": [held]}

    for something in (
        inner,
        inner.forward,
        score,
        partial(score, shift=1.0),
        Holder(lambda x: score(x)),
        (score,),
    ):
        assert modules_behind(something) == [inner]
    assert modules_behind(torch.sigmoid) == []
    assert modules_behind(broken.Sound().score)[0].prototype.shape == broken.SHAPE


def test_the_very_tensors_come_back_even_after_an_error():
    network = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).eval()
    before = {name: tensor.data_ptr() for name, tensor in network.state_dict(keep_vars=True).items()}
    kept = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    x = torch.rand(2, 3, generator=torch.Generator().manual_seed(0))
    single = network(x)
    with in_float64(lambda images: network(images)):
        double = network(x.double())
        assert double.dtype == torch.float64
        assert network[1].num_batches_tracked.dtype == torch.int64
    torch.testing.assert_close(double.float(), single, rtol=1e-5, atol=1e-6)
    with pytest.raises(ZeroDivisionError), in_float64(network):
        1 / 0  # noqa: B018
    after = network.state_dict(keep_vars=True)
    assert {name: tensor.data_ptr() for name, tensor in after.items()} == before
    assert all(
        torch.equal(after[name], kept[name]) and after[name].dtype == kept[name].dtype for name in kept
    )
