"""Train timm's ResNet-18 on a labelled set, as local weights for anomalib's models: nothing is downloaded.

    python docs/results/timm_backbone.py --data folder:cifar10 --output runs/resnet18-cifar10.safetensors

Images are enlarged to 64 x 64, since the network is made for large ones: shifted, mirrored, normalised as for
ImageNet, which is what anomalib's models do with their images. Prints the accuracy on the test images.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from certify.console import progress
from diffad.backbones.labelled import load_labelled

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def prepared(images: Tensor, side: int, generator: torch.Generator | None = None) -> Tensor:
    """Return images (b, 3, side, side) as the network sees them; with a generator mirrored and shifted at random."""
    large = nn.functional.interpolate(images, size=(side, side), mode="bilinear", align_corners=False)
    if generator is not None:
        flipped = torch.rand(len(large), generator=generator) < 0.5
        large = torch.where(flipped[:, None, None, None], large.flip(-1), large)
        down, right = torch.randint(0, 9, (2,), generator=generator).tolist()
        large = nn.functional.pad(large, (4, 4, 4, 4), mode="reflect")[
            ..., down : down + side, right : right + side
        ]
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    return (large - mean) / std


def train(images: Tensor, labels: Tensor, classes: int, epochs: int, side: int, seed: int) -> nn.Module:
    """Return the network after the epochs, in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = timm.create_model("resnet18", pretrained=False, num_classes=classes)
    network = network.to(memory_format=torch.channels_last)
    steps = epochs * (len(images) // 128)
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _ in progress(range(steps), "steps"):
        chosen = torch.randint(0, len(images), (128,), generator=generator)
        logits = network(
            prepared(images[chosen], side, generator).contiguous(memory_format=torch.channels_last)
        )
        loss = nn.functional.cross_entropy(logits, labels[chosen], label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def accuracy(network: nn.Module, images: Tensor, labels: Tensor, side: int) -> float:
    """Return the share of images that the network puts into their class."""
    with torch.no_grad():
        hits = [
            (network(prepared(some, side)).argmax(1) == label).float()
            for some, label in zip(images.split(250), labels.split(250), strict=True)
        ]
    return float(torch.cat(hits).mean())


def main() -> None:
    """Train, measure, save."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="a set with labels, such as folder:cifar10")
    parser.add_argument("--output", type=Path, required=True, help="the safetensors file")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    split = load_labelled(options.data)
    network = train(
        split.train.images, split.train.labels, len(split.classes), options.epochs, options.side, options.seed
    )
    print(f"test accuracy {accuracy(network, split.test.images, split.test.labels, options.side):.3f}")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, options.output)


if __name__ == "__main__":
    main()
