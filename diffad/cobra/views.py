"""What the losses of COBRA compare: the similarities of all views of a batch, and class scores.

A batch holds n images: b normal ones and, for each further class, the same b images transformed, in the same order
(b pseudo-anomalies, or the b images turned by 90, 180 and 270 degrees). Each image is seen in several views. A row, or
anchor, is one view of one image; rows are ordered view by view.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from certify.checks import InputError


@dataclass(frozen=True, eq=False)
class Views:
    """Cosine similarities of all rows, the class of each image, and the class scores of some rows.

    Attributes:
        similarities: (views * n, views * n) in [-1, 1]; the diagonal is never read.
        labels: class of each image (n,), 0 normal.
        logits: class scores (rows, classes) of whole views, rows a multiple of n; None where nothing is classified.
    """

    similarities: Float[Tensor, "rows rows"]
    labels: Int64[Tensor, " n"]
    logits: Float[Tensor, "scored classes"] | None = None

    def __post_init__(self) -> None:
        """Refuse fewer than two views, or rows that are no whole views."""
        rows, images = len(self.similarities), len(self.labels)
        if images == 0 or rows % images or rows < 2 * images:
            raise InputError(
                f"views: got {rows} rows of {images} images; need at least 2 views of each image"
            )
        if self.logits is not None and (len(self.logits) == 0 or len(self.logits) % images):
            raise InputError(
                f"views: got class scores of {len(self.logits)} rows; need whole views of {images} images"
            )

    @classmethod
    def of(
        cls,
        embeddings: Float[Tensor, "views n d"],
        labels: Int64[Tensor, " n"],
        logits: Float[Tensor, "scored classes"] | None = None,
    ) -> Views:
        """Return the views of a batch from embeddings of any length; similarities are cosines, in float32 or more."""
        wide = embeddings if embeddings.dtype == torch.float64 else embeddings.float()
        unit = F.normalize(wide.flatten(0, 1), dim=1)
        return cls(unit @ unit.T, labels, logits)

    @property
    def images(self) -> int:
        """Number of images n."""
        return len(self.labels)

    @property
    def views(self) -> int:
        """Number of views of each image."""
        return len(self.similarities) // self.images

    def positives(self) -> Float[Tensor, "views others n"]:
        """Return the similarity of each row to the other views of its image: [v, k, i], k over the others in order."""
        by_view = self._by_view()
        between = by_view.diagonal(dim1=1, dim2=3)  # (views, views, n)
        return between[self._others(), :].view(self.views, self.views - 1, self.images)

    def opposites(self) -> Float[Tensor, "views views n"]:
        """Return the similarity [v, w, i] of view v of image i to view w of its opposite: i + b of i, and i of i + b.

        Raises:
            InputError: the batch is not of as many pseudo-anomalies as normals, each behind its normal by b.
        """
        half = self.images // 2
        expected = torch.arange(self.images, device=self.labels.device) // max(half, 1)
        if self.images % 2 or not bool((self.labels == expected).all()):
            raise InputError(
                "opposite pairs: need b normal images and then their b pseudo-anomalies, classes 0 and 1; "
                "losses without opposite pairs (nt_xent, supcon, classification) take any classes"
            )
        rows = torch.arange(self.images, device=self.labels.device)
        return self._by_view()[:, rows, :, rows.roll(-half)].permute(1, 2, 0)

    def opposites_of_positives(self) -> Float[Tensor, "views others n"]:
        """Return, in the layout of `positives`, the similarity of each row to its opposite in the positive's view."""
        return self.opposites()[self._others(), :].view(self.views, self.views - 1, self.images)

    def log_denominators(self, temperature: float) -> Float[Tensor, "views 1 n"]:
        """Return log of the sum over all other rows, positives and negatives, of exp(similarity / temperature)."""
        rows = len(self.similarities)
        itself = torch.eye(rows, dtype=torch.bool, device=self.similarities.device)
        sums = (self.similarities / temperature).masked_fill(itself, -torch.inf).logsumexp(1)
        return sums.view(self.views, 1, self.images)

    def _by_view(self) -> Tensor:
        return self.similarities.view(self.views, self.images, self.views, self.images)

    def _others(self) -> Tensor:
        """Mask (views, views) of the pairs of two different views."""
        return ~torch.eye(self.views, dtype=torch.bool, device=self.similarities.device)
