"""Many processes, one job: every process runs the same program and draws its share of the noisy scores.

What a process did not draw it reads from the store that all of them write to, so each ends with all scores and goes on
as if it had been alone: the results are those of one process, to the bit on one kind of processor.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from certify.checks import InputError

# A share may take hours longer on a slow machine; the collective's own limit of half an hour would end the run.
PATIENCE = timedelta(days=30)


@dataclass(frozen=True)
class Shard:
    """One of the processes that work together.

    Args:
        rank: of this process, in [0, world).
        world: processes that really run.
        barrier: returns once every process has called it.
    """

    rank: int
    world: int
    barrier: Callable[[], None]

    def __post_init__(self) -> None:
        """Refuse a rank that does not exist."""
        if not 0 <= self.rank < self.world:
            raise InputError(f"shard: got rank {self.rank} of {self.world} processes")

    def owns(self, position: int) -> bool:
        """Whether this process draws the batch at `position` of a list that all processes share."""
        return position % self.world == self.rank


def current_shard() -> Shard | None:
    """Return the share of this process, or None for one that runs alone.

    Reads WORLD_SIZE, as `accelerate launch` and torchrun set it, and joins the other processes.

    Raises:
        InputError: if fewer processes work together than WORLD_SIZE promises.
    """
    text = os.environ.get("WORLD_SIZE", "1")
    if not text.isdigit() or int(text) < 1:
        raise InputError(f"WORLD_SIZE: got {text!r}, need the number of processes; unset it to run alone")
    promised = int(text)
    if promised == 1:
        return None
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise InputError(
            f"WORLD_SIZE is {promised} but {', '.join(missing)} not set: no launcher started this; use "
            f"accelerate launch --multi_gpu --num_processes {promised} ..., or unset WORLD_SIZE"
        )
    import torch
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    on_cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    state = PartialState(cpu=on_cpu, timeout=PATIENCE)
    if state.num_processes != promised:
        raise InputError(
            f"WORLD_SIZE is {promised} but {state.num_processes} process(es) work together: refusing to run apart; "
            f"on a CPU use: ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes {promised} ..."
        )
    return Shard(state.process_index, state.num_processes, state.wait_for_everyone)
