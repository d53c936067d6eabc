"""What an autoencoder of normal images doesn't give back; undefended, or trained on attacked images.

>>> import torch
>>> from diffad.baselines.autoencoder import Autoencoder
>>> detector = Autoencoder(steps=5).fit(torch.rand(20, 1, 8, 8))
>>> detector.score(torch.rand(3, 1, 8, 8)).shape
torch.Size([3])
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from certify.checks import InputError, check_positive
from certify.console import progress
from diffad.attacks.threat import ThreatModel
from diffad.backbones.craft import ascend, ball_start, constant_steps, last
from diffad.detector import Detector

LAYERS = 4


class Autoencoder(Detector):
    """L2 norm of what a small autoencoder of the normal images doesn't give back.

    Fully connected, pixels - hidden - code - hidden - pixels with GELU between, fitted by Adam on the mean squared
    error. Nothing defends it: a row that attacks bring to 0. With `adversarial_eps` each step minimises the error of
    normals that were moved to raise it (Madry et al., ICLR 2018, with the score for a loss; after the adversarially
    trained autoencoders of Salehi et al., "ARAE", 2021, who attack the code instead). No anomaly is seen: the scores of
    normals become harder to raise, those of anomalies stay as easy to lower.

    Args:
        hidden: units of the outer layers.
        code: units of the inner one, fewer than there are pixels.
        steps: of Adam.
        batch_size: normals a step; fewer training images are taken all at once.
        learning_rate: of Adam.
        adversarial_eps: radius of the attack in training, [0, 1] pixel units; 0 trains on clean images.
        adversarial_norm: linf or l2.
        adversarial_steps: gradient steps of that attack.
    """

    name = "autoencoder"
    min_images = 2

    def __init__(
        self,
        hidden: int = 128,
        code: int = 16,
        steps: int = 500,
        batch_size: int = 256,
        learning_rate: float = 2e-3,
        adversarial_eps: float = 0.0,
        adversarial_norm: str = "linf",
        adversarial_steps: int = 5,
    ) -> None:
        super().__init__()
        counts = {
            "hidden": hidden,
            "code": code,
            "steps": steps,
            "batch_size": batch_size,
            "adversarial_steps": adversarial_steps,
        }
        for argument, value in counts.items():
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InputError(
                    f"autoencoder: got {argument} = {value!r}, need a whole number of at least 1"
                )
        self.hidden, self.code, self.steps, self.batch_size = hidden, code, steps, batch_size
        self.learning_rate = check_positive(learning_rate, "learning_rate")
        threat = ThreatModel.parse(adversarial_norm, adversarial_eps)
        self.adversarial_eps, self.adversarial_norm = threat.eps, threat.norm
        self.adversarial_steps = adversarial_steps
        for layer in range(LAYERS):
            self.register_buffer(f"weight_{layer}", torch.empty(0))
            self.register_buffer(f"bias_{layer}", torch.empty(0))

    @property
    def score_name(self) -> str:
        """Empty, or how the adversarially trained twin was trained."""
        if self.adversarial_eps == 0:
            return ""
        return f"adversarial {self.adversarial_norm} {self.adversarial_eps:.3g}"

    def _fit(self, train: Tensor, seed: int) -> None:
        pixels = train[0].numel()
        if self.code >= pixels:
            raise InputError(
                f"autoencoder: got code = {self.code} for {pixels} pixels, need fewer than pixels"
            )
        generator = torch.Generator(train.device).manual_seed(seed)
        self._draw_weights(pixels, train.device, seed)
        parameters = [getattr(self, name) for name in self._names()]
        with torch.enable_grad():
            for parameter in parameters:
                parameter.requires_grad_(True)
            optimizer = torch.optim.Adam(parameters, lr=self.learning_rate)
            for _ in progress(range(self.steps), "autoencoder", self.steps):
                batch = self._attacked(_batch(train.float(), self.batch_size, generator), generator)
                optimizer.zero_grad()
                loss = self._residual(batch).square().mean()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        if not bool(torch.isfinite(loss)):
            raise InputError(
                f"autoencoder: the loss became {float(loss)}; lower learning_rate = {self.learning_rate}"
            )
        for name in self._names():
            setattr(self, name, getattr(self, name).detach())

    def _draw_weights(self, pixels: int, device: torch.device, seed: int) -> None:
        """Set uniform weights of PyTorch's usual size, drawn on the CPU from the seed alone."""
        generator = torch.Generator().manual_seed(seed)
        sizes = (pixels, self.hidden, self.code, self.hidden, pixels)
        for layer, (inside, outside) in enumerate(pairwise(sizes)):
            for name, shape in ((f"weight_{layer}", (outside, inside)), (f"bias_{layer}", (outside,))):
                bound = shape[-1] ** -0.5
                drawn = torch.empty(shape).uniform_(-bound, bound, generator=generator)
                setattr(self, name, drawn.to(device))

    def _names(self) -> Iterator[str]:
        for layer in range(LAYERS):
            yield from (f"weight_{layer}", f"bias_{layer}")

    def _attacked(self, batch: Tensor, generator: torch.Generator) -> Tensor:
        """Return the batch, moved within the threat to where the score is high."""
        if self.adversarial_eps == 0:
            return batch
        threat = ThreatModel.parse(self.adversarial_norm, self.adversarial_eps)
        sizes = constant_steps(threat.eps, self.adversarial_steps)
        start = ball_start(batch, threat, generator)
        return last(ascend(lambda images: self._score(images, None), start, batch, threat, sizes))

    def _residual(self, images: Tensor) -> Tensor:
        """Return what is not given back (b, pixels)."""
        flat = images.flatten(1).float()
        inner = flat
        for layer in range(LAYERS):
            inner = F.linear(inner, getattr(self, f"weight_{layer}"), getattr(self, f"bias_{layer}"))
            inner = F.gelu(inner) if layer < LAYERS - 1 else inner
        return flat - inner

    def _score(self, images: Tensor, noise: Tensor | None) -> Tensor:
        norms: Tensor = torch.linalg.vector_norm(self._residual(images), dim=1)
        return norms.to(images.dtype)

    def anomaly_map(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b h w"]:
        """Return the size of the residual at each pixel, as an L2 norm over the channels."""
        self._check_input(images)
        with torch.no_grad():
            residual = self._residual(images).view_as(images)
            norms: Tensor = torch.linalg.vector_norm(residual, dim=1)
        return norms.to(images.dtype)


def _batch(train: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Return `size` different images, or all of fewer."""
    if len(train) <= size:
        return train
    return train[torch.randperm(len(train), generator=generator, device=train.device)[:size]]
