from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from certify.checks import InputError
from diffad.backbones import Backbone
from diffad.cobra.filter import NormalityFilter, cut_held_out, fit_filter, normals_digest
from diffad.data.transforms import apply


def test_p_values_do_not_depend_on_the_batch(normality: NormalityFilter, eights: Tensor):
    images = eights[:50]
    whole = normality.p_values(images)
    single = torch.cat([normality.p_values(images[i : i + 1]) for i in range(50)])
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    assert torch.equal(whole, single)
    assert torch.equal(whole[order], normality.p_values(images[order]))
    assert whole.dtype == torch.float64


def test_held_out_normals_are_refused_at_the_level_and_hard_transforms_are_not(
    normality: NormalityFilter, eights: Tensor
):
    held_out = normality.p_values(eights[60:])
    # an image counts itself among those no more likely: at most 5 % lie below
    assert float((held_out < 0.05).double().mean()) <= 0.05
    noisy = normality.p_values(apply("noise", eights, seeds=range(len(eights))))
    assert float((noisy < 0.05).double().mean()) > 0.9


def test_saved_and_loaded_it_is_the_same(normality: NormalityFilter, eights: Tensor, tmp_path: Path):
    normality.save_pretrained(tmp_path / "filter")
    again = NormalityFilter.from_pretrained(tmp_path / "filter")
    assert again.fingerprint() == normality.fingerprint()
    assert again.normals == normals_digest(eights.flip(0)) != normals_digest(eights[1:])
    assert torch.equal(again.p_values(eights[:9]), normality.p_values(eights[:9]))


def test_a_folder_that_does_not_belong_together_is_refused(
    normality: NormalityFilter, eights: Tensor, tmp_path: Path
):
    other = fit_filter(eights[:50], normality.classifier, held_out=eights[50:])
    normality.save_pretrained(tmp_path / "one")
    other.save_pretrained(tmp_path / "two")
    (tmp_path / "two" / "model.safetensors").replace(tmp_path / "one" / "model.safetensors")
    with pytest.raises(InputError, match="do not belong together"):
        NormalityFilter.from_pretrained(tmp_path / "one")
    config = json.loads((tmp_path / "one" / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "one" / "config.json").write_text(
        json.dumps({**config, "_class_name": "Filter"}), encoding="utf-8"
    )
    with pytest.raises(InputError, match="is no filter of diffad"):
        NormalityFilter.from_pretrained(tmp_path / "one")
    with pytest.raises(InputError, match="need a folder that a filter was saved to"):
        NormalityFilter.from_pretrained(tmp_path)


def test_the_held_out_share_is_random_by_the_seed_and_disjoint():
    images = torch.rand(20, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    fit, held_out = cut_held_out(images, 0.25, 0)
    assert (len(fit), len(held_out)) == (15, 5)
    assert len(torch.unique(torch.cat([fit, held_out]), dim=0)) == 20
    assert torch.equal(cut_held_out(images, 0.25, 0)[1], held_out)
    assert not torch.equal(cut_held_out(images, 0.25, 1)[1], held_out)
    for share in (0.0, 1.0, 0.01):
        with pytest.raises(InputError, match="held_out: a share"):
            cut_held_out(images, share, 0)


def test_images_of_another_depth_are_refused(trained: tuple[Backbone, Path]):
    with pytest.raises(InputError, match="backbone: got images"):
        fit_filter(torch.rand(4, 3, 16, 16), trained[0], held_out=torch.rand(4, 3, 16, 16))
