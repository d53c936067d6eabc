"""One step of COBRA on a fixed batch; as a script, on this process's share of it under data parallelism.

    python -m torch.distributed.run --nproc_per_node 2 halves.py FILE

writes the gradients that all processes agree on. The light views are fixed and batch norm is in evaluation mode, so
that the result of two processes can be compared with that of one.
"""

from __future__ import annotations

import sys

import torch
import torch.distributed
from safetensors.torch import save_file
from torch import Tensor, nn

from diffad.attacks.threat import ThreatModel
from diffad.backbones import ResNet
from diffad.cobra.adversary import Adversary
from diffad.cobra.losses import LossOptions
from diffad.cobra.network import CobraNetwork, Heads
from diffad.cobra.step import CobraStep

LOSSES = {"binary": ("additive", "paper_clamped"), "rotations": ("nt_xent", "supcon")}
COUNT = 8


class FixedViews(CobraStep):
    """The first view is the image, the second its mirror image."""

    def _light(self, images: Tensor, generator: torch.Generator) -> Tensor:
        self.calls = getattr(self, "calls", 0) + 1
        return images if self.calls % 2 else images.flip(-1)


def batch(head: str, part: slice = slice(None)) -> tuple[Tensor, ...]:
    images, pseudo = torch.rand(2, COUNT, 1, 8, 8, generator=torch.Generator().manual_seed(5)).double()
    if head == "rotations":
        return (images[part],)
    counts = torch.ones(COUNT, dtype=torch.int64)
    return images[part], pseudo[part], torch.zeros(COUNT)[part], counts[part], counts.bool()[part]


def gradients(head: str, data: tuple[Tensor, ...], parallel: bool = False) -> dict[str, Tensor]:
    """Return the gradient of every parameter, and the loss under the name `loss`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        classes = 4 if head == "rotations" else 2
        encoder = ResNet(width=4, blocks=(1, 1), classes=0, in_channels=1)
        network = CobraNetwork(encoder, Heads(8, 6, classes)).double().eval()
    step = FixedViews(
        network,
        {**dict.fromkeys(LOSSES[head], 1.0), "classification": 0.5},
        LossOptions(),
        # the sign of a gradient that is nearly zero would not be the same twice
        adversary=Adversary(ThreatModel.parse("l2", 0.5), steps=3, start="clean"),
        rotations=head == "rotations",
    )
    model = nn.parallel.DistributedDataParallel(network) if parallel else network
    loss = step(model, data, torch.Generator())
    loss.backward()
    found = {name: parameter.grad for name, parameter in network.named_parameters()}
    return {**{name: grad for name, grad in found.items() if grad is not None}, "loss": loss.detach()}


if __name__ == "__main__":
    torch.distributed.init_process_group("gloo")
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    share = COUNT // world
    found = {}
    for head in LOSSES:
        own = batch(head, slice(rank * share, (rank + 1) * share))
        found |= {f"{head}/{name}": one for name, one in gradients(head, own, parallel=True).items()}
    if rank == 0:
        save_file(found, sys.argv[1], metadata={"world_size": str(world)})
    torch.distributed.destroy_process_group()
