"""COBRA: how far the embedding of an image points away from those of all normal images.

    score(x) = - max over normals n of cos(f(x), f(n)),    f = G(F(x))

>>> from diffad import load_detector                            # doctest: +SKIP
>>> load_detector("runs/cobra/digits").score(images)            # doctest: +SKIP
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias, TypeVar, get_args

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from certify.checks import InputError, check_choice
from certify.console import progress
from certify.types import ScoreFunction
from diffad.attacks.summaries import soft_maximum
from diffad.backbones import Backbone, load_backbone
from diffad.cobra.heads_file import load_heads, save_heads
from diffad.cobra.network import Heads
from diffad.cobra.released import ensemble_outputs, normality
from diffad.detector import Detector
from diffad.neighbours import nearest

C = TypeVar("C", bound="Cobra")
ScoreKind: TypeAlias = Literal["cosine", "classifier", "sum", "ensemble_released"]
Embedding: TypeAlias = Literal["projection", "features"]
SCORES: tuple[ScoreKind, ...] = get_args(ScoreKind)
EMBEDDINGS: tuple[Embedding, ...] = get_args(Embedding)
_BATCH, _ROUNDING = 64, 1e-5


class Cobra(Detector):
    """Minus the largest cosine similarity to a normal image, of embeddings trained against an attacker.

    The network is trained by `diffad.cobra.train` and stays as it is; `fit` keeps the embeddings of the normals as they
    are, without augmentation. Nothing is random and no augmentation is made at test time.

    Args:
        score: `cosine` is that of the paper (its A). `classifier` is the log-odds of a pseudo-anomaly, which ranks like
            its probability but does not saturate. `sum` adds the probability to the cosine score; its surrogate
            `sum_of_log_odds` has the better gradients. `ensemble_released` is the score of the released code
            (`diffad.cobra.released`), with an approximate gradient.
        embedding: `projection` is f = G(F); `features` is F itself. The paper writes either.
    """

    name: ClassVar[str] = "cobra"
    bank: Tensor
    ensemble_bank: Tensor
    ensemble_scores: Tensor

    def __init__(self, score: str = "cosine", embedding: str = "projection") -> None:
        super().__init__()
        self.score_name = check_choice(score, SCORES, "score")
        self.embedding = check_choice(embedding, EMBEDDINGS, "embedding")
        if score == "ensemble_released":
            self.approximate_gradient = "straight-through colour jitter"
        self.backbone: Backbone | None = None
        self.heads: Heads | None = None
        for name in ("bank", "ensemble_bank", "ensemble_scores"):
            self.register_buffer(name, torch.empty(0))

    @classmethod
    def from_network(cls: type[C], backbone: Backbone, heads: Heads, **options: Any) -> C:
        """A detector on this encoder and these heads, frozen; call `fit` next."""
        return cls(**options).attach(backbone, heads)

    def attach(self: C, backbone: Backbone, heads: Heads) -> C:
        """Use this network, frozen and in eval mode."""
        if heads.classifier.in_features != backbone.dim:
            raise InputError(
                f"cobra: heads for {heads.classifier.in_features} features on an encoder with {backbone.dim}"
            )
        self.backbone = backbone.eval().requires_grad_(False)
        self.heads = heads.eval().requires_grad_(False)
        return self

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments as JSON values."""
        return {"score": self.score_name, "embedding": self.embedding}

    def embed(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Return the embeddings (b, d) that are compared, of any length; differentiable."""
        backbone, heads = self._network()
        features = backbone.features(images)
        embeddings: Tensor = heads.projection(features) if self.embedding == "projection" else features
        return embeddings

    def log_odds(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, " b"]:
        """Return the logarithm of the odds (b,) that an image is not of class 0; differentiable."""
        return self._log_odds(self._outputs(images)[1])

    def cosine_score(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, " b"]:
        """Return minus the largest cosine (b,) to the bank, float64; differentiable.

        The nearest normal is found anew at each call, in float64; the gradient holds it fixed, which it is almost
        everywhere.
        """
        return self._cosine(self.embed(images))

    def in_bank(self, images: Float[Tensor, "n c h w"]) -> list[int]:
        """Return which images have the embedding of a normal in the bank, up to rounding."""
        device = self.bank.device
        with torch.no_grad():
            embedded = torch.cat(
                [self.embed(batch.to(device)).float() for batch in torch.split(images, _BATCH)]
            )
        distances, which = nearest(embedded, self.bank, 1)
        lengths = self.bank[which[:, 0]].norm(dim=1)
        found: list[int] = (distances[:, 0] <= _ROUNDING * lengths).nonzero()[:, 0].tolist()
        return found

    def _fit(self, train: Tensor, seed: int) -> None:
        device = self.bank.device  # that of the network, wherever the images are
        batches = [batch.to(device) for batch in torch.split(train, _BATCH)]
        bank = torch.cat([self.embed(batch).float() for batch in progress(batches, "embeddings of normals")])
        self.bank = finite(bank)
        self.fit_info["bank"] = len(bank)
        if self.score_name == "ensemble_released":
            parts = [self._ensemble(batch) for batch in progress(batches, "views of normals")]
            self.ensemble_bank = finite(torch.cat([embeddings.float() for embeddings, _ in parts]))
            self.ensemble_scores = finite(torch.cat([scores.float() for _, scores in parts])).mean(0)

    def _score(self, images: Tensor, noise: Tensor | None) -> Tensor:
        return self._scores(images).to(images.dtype)

    def _scores(self, images: Tensor) -> Tensor:
        if self.score_name == "cosine":
            return self.cosine_score(images)
        if self.score_name == "ensemble_released":
            return -normality(*self._ensemble(images), self.ensemble_bank, self.ensemble_scores)
        embeddings, logits = self._outputs(images)
        odds = self._log_odds(logits).double()
        return odds if self.score_name == "classifier" else self._cosine(embeddings) + odds.sigmoid()

    def surrogates(self) -> dict[str, ScoreFunction]:
        """Return stand-ins with smoother gradients.

        `soft_cosine` is a soft maximum over all normals (log-sum-exp), `mean_cosine` the cosine to their mean
        direction. Of `sum`, `sum_of_log_odds` has the log-odds in the place of the probability, which saturates; of
        `ensemble_released`, `exact_jitter` has the exact gradient of the colour jitter.
        """
        if self.score_name == "classifier":
            return {}
        if self.score_name == "ensemble_released":
            return {"exact_jitter": self._exact_jitter}
        if self.score_name == "sum":
            return {"sum_of_log_odds": self._sum_of_log_odds}
        return {"soft_cosine": self._soft_cosine, "mean_cosine": self._mean_cosine}

    def _soft_cosine(self, images: Tensor) -> Tensor:
        cosines = F.normalize(self.embed(images).double(), dim=1) @ self._directions().T
        return -soft_maximum(cosines).to(images.dtype)

    def _mean_cosine(self, images: Tensor) -> Tensor:
        mean = F.normalize(self._directions().mean(0), dim=0)
        return -(F.normalize(self.embed(images).double(), dim=1) @ mean).to(images.dtype)

    def _sum_of_log_odds(self, images: Tensor) -> Tensor:
        embeddings, logits = self._outputs(images)
        return (self._cosine(embeddings) + self._log_odds(logits)).to(images.dtype)

    def _exact_jitter(self, images: Tensor) -> Tensor:
        found = self._ensemble(images, exact=True)
        return -normality(*found, self.ensemble_bank, self.ensemble_scores).to(images.dtype)

    def _cosine(self, embeddings: Tensor) -> Tensor:
        directions, own = self._directions(), F.normalize(embeddings.double(), dim=1)
        _, which = nearest(own.detach(), directions, 1)  # of unit vectors: the one with the largest cosine
        return -(own * directions[which[:, 0]]).sum(1)

    def _directions(self) -> Tensor:
        """Unit vectors of the bank, float64."""
        return F.normalize(self.bank.double(), dim=1)

    def _outputs(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the compared embeddings and the class scores from one pass."""
        backbone, heads = self._network()
        features = backbone.features(images)
        embeddings, logits = heads(features)
        return (embeddings if self.embedding == "projection" else features), logits

    def _log_odds(self, logits: Tensor) -> Tensor:
        return logits[:, 1:].logsumexp(1) - logits[:, 0]

    def _ensemble(self, images: Tensor, *, exact: bool = False) -> tuple[Tensor, Tensor]:
        _, heads = self._network()
        shifts = heads.classes if heads.classes == 4 else 1
        return ensemble_outputs(self._outputs, images, shifts, exact=exact)

    def _network(self) -> tuple[Backbone, Heads]:
        if self.backbone is None or self.heads is None:
            raise InputError(
                "cobra: has no network; train one (accelerate launch -m diffad.cobra.train --config "
                "configs/cobra/digits.yaml) and name its folder"
            )
        return self.backbone, self.heads

    # ---- folder

    def _save_parts(self, directory: Path) -> None:
        backbone, heads = self._network()
        backbone.save_pretrained(directory / "backbone")
        save_heads(heads, directory / "heads")

    def _load_parts(self, directory: Path) -> None:
        self.attach(load_backbone(directory / "backbone"), load_heads(directory / "heads"))


def finite(tensor: Tensor) -> Tensor:
    """Return what the network gave of training images, if it is finite."""
    if not bool(torch.isfinite(tensor).all()):
        raise InputError("cobra: the network gives NaN or infinity for training images")
    return tensor
