"""The distribution-aware filter: how plausible an image is as a normal one (COBRA, sec. 3.1).

A classifier that tells transforms apart embeds images; a Gaussian mixture knows the embeddings of normals. A
transformed image whose p-value under it is small is an anomaly; one that still looks normal is not used as one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from certify.checks import InputError, check_images
from certify.console import progress
from diffad import folder
from diffad.backbones import Backbone, load_backbone
from diffad.cobra.mixture import Mixture

N = TypeVar("N", bound="NormalityFilter")

CLASSIFIER = "classifier"
KEYS = ("_class_name", "_diffad_version", "classifier", "held_out", "normals", "fingerprint")
_BATCH = 32


class NormalityFilter(nn.Module):
    """P-values of images under the normal ones: small means unlike them.

    Args:
        classifier: tells the transforms apart; its features are the embedding, in evaluation mode always.
        mixture: fitted on embeddings of normal images.
        normals: `normals_digest` of the images that it was fitted on and calibrated with.
    """

    def __init__(self, classifier: Backbone, mixture: Mixture, normals: str = "") -> None:
        super().__init__()
        self.classifier = classifier
        self.mixture = mixture
        self.normals = normals

    @torch.no_grad()
    def p_values(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, " b"]:
        """Return the p-value of each image, float64 in (0, 1], on the device of the filter's tensors."""
        return torch.cat(
            [self.mixture.p_values(part)[:count] for part, count in embed(self.classifier, images)]
        )

    def fingerprint(self) -> str:
        """Return a SHA-256 (hex) of classifier, mixture and the digest of the normals."""
        config = {"classifier": self.classifier.fingerprint(), "normals": self.normals}
        return folder.fingerprint(config, self.mixture.state_dict())

    def save_pretrained(self, directory: Path | str) -> None:
        """Write config.json, model.safetensors (the mixture), README.md and the folder `classifier`."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        self.classifier.save_pretrained(directory / CLASSIFIER)
        values = (
            type(self).__name__,
            version("diffad"),
            self.classifier.fingerprint(),
            len(self.mixture.held_out),
            self.normals,
            self.fingerprint(),
        )
        config = dict(zip(KEYS, values, strict=True))
        folder.write(directory, config, self.mixture.state_dict(), card(config))

    @classmethod
    def from_pretrained(cls: type[N], directory: Path | str) -> N:
        """Load a folder that `save_pretrained` wrote; strict about names, dtypes and the fingerprint."""
        directory = Path(directory)
        config = read_config(directory)
        mixture = Mixture()
        for key, tensor in folder.read_tensors(directory, mixture.state_dict()).items():
            setattr(mixture, key, tensor)
        loaded = cls(load_backbone(directory / CLASSIFIER), mixture, config["normals"])
        if loaded.fingerprint() != config["fingerprint"]:
            raise InputError(
                f"{directory}: {folder.CONFIG}, mixture and classifier do not belong together, or were changed "
                "since; fit the filter again"
            )
        return loaded


def fit_filter(
    images: Float[Tensor, "n c h w"],
    classifier: Backbone,
    *,
    held_out: Float[Tensor, "m c h w"],
    components: int = 1,
    reg_covar: float = 1e-4,
    pca: int | None = 64,
    seed: int = 0,
) -> NormalityFilter:
    """Fit the mixture of a filter on normal images; `held_out`, other normals, set its p-values (see `Mixture.fit`)."""
    check_images(images)
    check_images(held_out, name="held_out")
    parts = []
    for normals in (images, held_out):
        rows = [part[:count] for part, count in embed(classifier, normals, "embedding normals")]
        parts.append(torch.cat(rows))
    mixture = Mixture.fit(*parts, components=components, reg_covar=reg_covar, pca=pca, seed=seed)
    return NormalityFilter(classifier, mixture, normals_digest(torch.cat([images, held_out])))


def normals_digest(images: Float[Tensor, "n c h w"]) -> str:
    """Return a SHA-256 (hex) of a set of images, whatever their order; pixels count in 16 bits."""
    pixels = (images * (2**16 - 1)).round().to(torch.int32).cpu().numpy()
    hashes = sorted(
        hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest() for image in pixels
    )
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def cut_held_out(images: Float[Tensor, "n c h w"], share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return the images without a random share, and that share, to set p-values with; order kept."""
    count = round(share * len(images))
    if not 0 < count < len(images):
        raise InputError(
            f"held_out: a share of {share} of {len(images)} images is {count} of them; need some on both sides"
        )
    chosen = torch.zeros(len(images), dtype=torch.bool)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    chosen[order[:count]] = True
    mask = chosen.to(images.device)
    return images[~mask], images[mask]


@torch.no_grad()
def embed(classifier: Backbone, images: Tensor, label: str | None = None) -> Iterator[tuple[Tensor, int]]:
    """Yield the embeddings of the images in batches of a fixed size, and how many rows of each are real.

    Images come from any device; embeddings are on the classifier's.
    The last batch is filled up: rounding depends on the size of a batch, and a p-value must not depend on how many
    images it was computed with.
    """
    batches = torch.split(images, _BATCH)
    for batch in batches if label is None else progress(list(batches), label):
        filled = F.pad(batch, (0, 0, 0, 0, 0, 0, 0, _BATCH - len(batch)))
        yield classifier.features(filled.to(classifier.mean.device)), len(batch)


def read_config(directory: Path) -> dict[str, Any]:
    """Return config.json after checking that it is that of a filter."""
    path = directory / folder.CONFIG
    if not path.is_file():
        raise InputError(f"{directory}: holds no {folder.CONFIG}; need a folder that a filter was saved to")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: cannot be read ({folder.one_line(error)})") from error
    if not isinstance(config, dict) or set(config) != set(KEYS) or config["_class_name"] != "NormalityFilter":
        raise InputError(f"{path}: is no filter of diffad {version('diffad')}; fit the filter again")
    return config


def card(config: dict[str, Any]) -> str:
    """Return README.md."""
    return f"""---
library_name: diffad
---
# Distribution-aware filter of COBRA

How plausible an image is as a normal one: a Gaussian mixture (model.safetensors) on the features of a classifier that
tells transforms apart (classifier/), against {config["held_out"]} held-out normals.

```python
from diffad.cobra.filter import NormalityFilter

p_values = NormalityFilter.from_pretrained("path/to/this/folder").p_values(images)
```
"""
