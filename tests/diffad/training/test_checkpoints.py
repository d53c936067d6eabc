import os
from pathlib import Path

import pytest
import torch
from torch import nn

from certify.checks import InputError
from diffad.training.checkpoints import (
    find_checkpoint,
    join_optimizer,
    list_checkpoints,
    load_checkpoint,
    remove_unfinished,
    save_checkpoint,
    split_optimizer,
)


def test_round_trip_keeps_every_bit(tmp_path: Path) -> None:
    tensors = {
        "model": {
            "a": torch.randn(3, 2, generator=torch.Generator().manual_seed(0)).t(),
            "b": torch.tensor(2.5),
        }
    }
    state = {"step": 5, "lr": 0.1 + 0.2, "nothing": None}
    found, values = load_checkpoint(save_checkpoint(tmp_path, 5, tensors, state))
    assert all(torch.equal(found["model"][name], tensors["model"][name]) for name in ("a", "b"))
    assert values == state


def test_latest_is_the_largest_number_not_the_last_name(tmp_path: Path) -> None:
    for step in (9, 100, 20):
        save_checkpoint(tmp_path, step, {}, {"step": step})
    (tmp_path / "checkpoint-final").mkdir()
    assert [step for step, _ in list_checkpoints(tmp_path)] == [9, 20, 100]
    assert find_checkpoint(tmp_path, "latest") == tmp_path / "checkpoint-100"
    assert find_checkpoint(tmp_path, "checkpoint-9") == tmp_path / "checkpoint-9"
    assert find_checkpoint(tmp_path, str(tmp_path / "checkpoint-20")) == tmp_path / "checkpoint-20"
    assert find_checkpoint(tmp_path, None) is None


def test_nothing_yet_is_a_fresh_start_but_a_missing_path_is_an_error(tmp_path: Path) -> None:
    assert find_checkpoint(tmp_path / "absent", "latest") is None
    with pytest.raises(InputError, match="checkpoint-7 is not a checkpoint folder"):
        find_checkpoint(tmp_path, "checkpoint-7")


def test_a_write_cut_short_is_never_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path, 1, {"model": {"a": torch.zeros(2)}}, {"step": 1})

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(tmp_path, 2, {"model": {"a": torch.ones(2)}}, {"step": 2})
    assert find_checkpoint(tmp_path, "latest") == tmp_path / "checkpoint-1"
    assert len(list(tmp_path.iterdir())) == 2
    remove_unfinished(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]


def test_limit_keeps_the_newest_and_a_step_can_be_written_again(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, step, {}, {"step": step}, limit=2)
    assert [step for step, _ in list_checkpoints(tmp_path)] == [2, 3]
    save_checkpoint(tmp_path, 3, {}, {"step": 3, "again": True}, limit=2)
    assert load_checkpoint(tmp_path / "checkpoint-3")[1]["again"] is True


@pytest.mark.parametrize(
    "make", [lambda p: torch.optim.AdamW(p, fused=True), lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)]
)
def test_optimiser_goes_on_as_if_never_stopped(make, tmp_path: Path) -> None:
    def step(network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        network(torch.ones(1, 3)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    network = nn.Linear(3, 2)
    optimizer = make(network.parameters())
    step(network, optimizer)
    tensors, values = split_optimizer(optimizer)
    save_checkpoint(tmp_path, 1, {"model": network.state_dict(), "optimizer": tensors}, values)
    step(network, optimizer)

    saved, values = load_checkpoint(tmp_path / "checkpoint-1")
    other = nn.Linear(3, 2)
    other.load_state_dict(saved["model"])
    resumed = make(other.parameters())
    join_optimizer(resumed, saved["optimizer"], values)
    step(other, resumed)
    assert torch.equal(network.weight, other.weight)
