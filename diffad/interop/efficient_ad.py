"""How EfficientAD is fitted (Batzner et al., WACV 2024): anomalib's networks and losses, without Lightning.

A student learns the features of a frozen teacher on normal images, an autoencoder learns them through a bottleneck, and
a second half of the student learns the autoencoder's. Two maps of squared differences are brought to one scale by
their quantiles on held-out normals, and added. That scaling is part of the score; anomalib's normalisation of scores
to [0, 1] comes after it and is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib import import_module
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torchvision.transforms.functional import center_crop, rgb_to_grayscale

from certify.checks import InputError
from diffad.data.reading import SUFFIXES, read_image

if TYPE_CHECKING:
    from diffad.interop.anomalib_models import Batches

LEAST_SIDE = 256  # the last of its encoder's convolutions has nothing left to look at in smaller images
HELD_OUT = 10  # every tenth normal gives the quantiles of the maps, as in the paper
HARD = 0.999  # quantile of the squared differences from which on the student's loss counts them
GREY = 0.3  # share of the penalty images that lose their colour
LAST_STEPS = 0.05  # share of the steps with a tenth of the learning rate


def fit(model: Any, batches: Batches, options: Mapping[str, Any]) -> None:
    """Train student and autoencoder, and set the statistics of the teacher and of the maps.

    With `options["penalty"]`, a folder of natural images, the student is also kept from answering those, one image a
    step (anomalib downloads imagenette for that); None leaves this term out. Adam, rate 1e-4, weight decay 1e-5.
    """
    penalties = penalty_images(options["penalty"], batches)
    order = torch.randperm(len(batches.images), generator=torch.Generator().manual_seed(batches.seed))
    order, count = order.to(batches.images.device), max(1, len(order) // HELD_OUT)
    held, kept = (replace(batches, images=batches.images[part]) for part in (order[:count], order[count:]))
    model.mean_std.update(teacher_statistics(model.teacher, kept))
    _train(model, kept, penalties, int(options["steps"]))
    model.eval()
    maps = [model.get_maps(batch) for batch in held.once()]
    for name, found in zip(("st", "ae"), zip(*maps, strict=True), strict=True):
        model.quantiles.update(map_quantiles(torch.cat(found), name))


def _train(model: Any, batches: Batches, penalties: Iterator[Tensor | None], steps: int) -> None:
    trained = [*model.student.parameters(), *model.ae.parameters()]
    optimiser = torch.optim.Adam(trained, lr=1e-4, weight_decay=1e-5)
    slower = torch.optim.lr_scheduler.StepLR(optimiser, max(1, round((1 - LAST_STEPS) * steps)))
    model.train()
    with torch.enable_grad():
        for batch in batches.drawn(steps):
            optimiser.zero_grad()
            loss(model, batch, next(penalties)).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            slower.step()


def loss(model: Any, batch: Tensor, penalty: Tensor | None) -> Tensor:
    """Return the sum of the losses of `EfficientAdModel.compute_losses`; without its penalty where that is None."""
    _, difference = model.compute_student_teacher_distance(batch)
    given = batch[:1] if penalty is None else penalty
    student, autoencoder, both = model.compute_losses(batch, given, difference)
    if penalty is None:
        flat = difference.flatten()
        student = flat[flat >= torch.quantile(_few(flat), HARD)].mean()
    total: Tensor = student + autoencoder + both
    return total


def teacher_statistics(teacher: nn.Module, batches: Batches) -> dict[str, Tensor]:
    """Return mean and standard deviation (1, c, 1, 1) of each channel of the teacher's features."""
    means, squares, count = [], [], []
    for batch in batches.once():
        features = teacher(batch).double()
        means.append(features.sum((0, 2, 3)))
        squares.append(features.square().sum((0, 2, 3)))
        count.append(features[:, 0].numel())
    mean, square = (torch.stack(parts).sum(0) / sum(count) for parts in (means, squares))
    deviation = (square - mean.square()).clamp(min=0).sqrt()
    return {name: value.float()[None, :, None, None] for name, value in (("mean", mean), ("std", deviation))}


def map_quantiles(maps: Tensor, name: str) -> dict[str, Tensor]:
    """Return the quantiles .9 and .995 of maps of normals, between which the scaled map is 0 and .1."""
    low, high = (torch.quantile(_few(maps.flatten()), level) for level in (0.9, 0.995))
    if not high > low:
        raise RuntimeError(f"the maps of held-out normals are constant at {float(low):.3g}")
    return {f"qa_{name}": low, f"qb_{name}": high}


def penalty_images(folder: str | None, batches: Batches) -> Iterator[Tensor | None]:
    """Yield images (1, 3, side, side) of a folder and those below it, drawn with a seed; None for ever without one.

    The middle half of each, of the size of the training images, some without colour, as anomalib takes them.
    """
    if folder is None:
        return repeat(None)
    if not Path(str(folder)).is_dir():
        raise InputError(
            f"penalty: {str(folder)!r} is no folder; name one of natural images, such as imagenette, or leave it out"
        )
    paths = sorted(path for path in Path(str(folder)).rglob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise InputError(f"penalty: {str(folder)!r} holds no image, allowed are {', '.join(SUFFIXES)}")
    return _drawn(paths, batches)


def _drawn(paths: list[Path], batches: Batches) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(batches.seed + 1)  # other draws than those of the batches
    side = batches.images.shape[-1]
    while True:
        path = paths[int(torch.randint(len(paths), (1,), generator=generator))]
        image = center_crop(read_image(path, resolution=2 * side, channels=3), [side, side])
        if float(torch.rand(1, generator=generator)) < GREY:
            image = rgb_to_grayscale(image, 3)
        yield image[None].to(batches.images)


def _few(values: Tensor) -> Tensor:
    """Return at most the 2^24 values that `torch.quantile` takes, chosen as anomalib does."""
    chosen: Tensor = import_module("anomalib.models.image.efficient_ad.torch_model").reduce_tensor_elems(
        values
    )
    return chosen
