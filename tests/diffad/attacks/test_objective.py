from __future__ import annotations

import pytest
from torch import nn

from certify.checks import InputError
from diffad.attacks.objective import check_eval_mode


class Scored(nn.Module):
    """A detector whose images share a batch norm."""

    def __init__(self, **options: bool) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3, **options)

    def score(self, images):
        return self.norm(images).flatten(1).norm(dim=1)


def test_layers_that_couple_images_are_refused_in_modules_and_methods() -> None:
    for score in (Scored(), Scored().score):
        with pytest.raises(InputError, match="BatchNorm2d is in training mode"):
            check_eval_mode(score)
    check_eval_mode(Scored().eval().score)
    with pytest.raises(InputError, match="keeps no running statistics"):
        check_eval_mode(Scored(track_running_stats=False).eval().score)
    check_eval_mode(lambda images: images.flatten(1).norm(dim=1))
