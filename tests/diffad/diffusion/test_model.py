from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from safetensors.torch import load_file, save_file

from certify.checks import InputError
from diffad.diffusion.model import PREDICTION_TYPES, Denoiser
from diffad.diffusion.schedule import sigmas_of_schedule

TIMESTEPS = (0, 145, 600)


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
def test_an_exact_prediction_is_inverted_exactly(kind, tiny) -> None:
    denoiser = tiny.denoiser(prediction_type=kind)
    x = tiny.images(4)
    e = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    for timestep in TIMESTEPS:
        sigma = float(sigmas_of_schedule(denoiser.alphas_cumprod)[timestep])
        steps = torch.full((4,), timestep)
        denoiser.forward = lambda u, t, steps=steps: denoiser.training_target(2 * x - 1, e, steps)
        torch.testing.assert_close(denoiser.denoise(x + sigma * e, sigma), x, rtol=0, atol=2e-5 * (1 + sigma))


def test_the_network_sees_the_forward_process(tiny) -> None:
    """Scaled by sqrt(abar_t) and centred: feeding unscaled u + noise is the classic mistake."""
    denoiser, x, seen = tiny.denoiser(), tiny.images(2), []
    e = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    denoiser.forward = lambda u, t: seen.append((u, t)) or u
    sigma = float(sigmas_of_schedule(denoiser.alphas_cumprod)[145])
    denoiser.denoise(x + sigma * e, sigma)
    ((u, t),) = seen
    assert t.tolist() == [145, 145]
    torch.testing.assert_close(u, denoiser.add_noise(2 * x - 1, e, t), rtol=0, atol=1e-5)
    torch.testing.assert_close(u, denoiser.scheduler.add_noise(2 * x - 1, e, t), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
def test_the_closed_form_is_that_of_diffusers(kind, tiny) -> None:
    denoiser = tiny.denoiser(prediction_type=kind)
    scheduler = DDPMScheduler(1000, prediction_type=kind, clip_sample=False)
    u, prediction = tiny.images(3, seed=2), tiny.images(3, seed=3)
    for timestep in TIMESTEPS:
        known = scheduler.step(prediction, timestep, u).pred_original_sample
        ours = denoiser.clean_from_prediction(u, prediction, torch.full((3,), timestep))
        torch.testing.assert_close(ours, known, rtol=1e-5, atol=1e-5)


def test_the_v_target_is_that_of_diffusers(tiny) -> None:
    denoiser = tiny.denoiser(prediction_type="v_prediction")
    u, e, t = tiny.images(3), tiny.images(3, seed=4), torch.tensor(TIMESTEPS)
    torch.testing.assert_close(denoiser.training_target(u, e, t), denoiser.scheduler.get_velocity(u, e, t))


@pytest.mark.parametrize("channels", [1, 3])
def test_space_to_depth_is_an_isometry_that_comes_back(channels, tiny, monkeypatch) -> None:
    denoiser, seen = tiny.denoiser((channels, 8, 8), space_to_depth=2), []

    def identity(folded, timesteps, return_dict):
        seen.append(folded)
        return (folded,)

    monkeypatch.setattr(denoiser.unet, "forward", identity)
    u = tiny.images(2, (channels, 8, 8))
    assert torch.equal(denoiser(u, torch.tensor([3, 3])), u)
    (folded,) = seen
    assert folded.shape == (2, 4 * channels, 4, 4)
    assert torch.equal(folded.flatten(1).sort().values, u.flatten(1).sort().values)
    # a block of 2 x 2 pixels of one channel becomes four channels at one place
    assert folded[0, :4, 1, 2].tolist() == u[0, 0, 2:4, 4:6].flatten().tolist()


@pytest.mark.parametrize("factor", [1, 2])
def test_reconstruction_reads_the_noisy_image_alone(factor, tiny) -> None:
    denoiser = tiny.denoiser(space_to_depth=factor)
    noisy = tiny.images(5) * 3 - 1
    together = denoiser.denoise(noisy, 0.5)
    assert together.shape == noisy.shape
    assert torch.equal(together, denoiser.denoise(noisy.clone(), 0.5))
    for i in range(5):
        torch.testing.assert_close(
            denoiser.denoise(noisy[i : i + 1], 0.5)[0], together[i], rtol=1e-5, atol=1e-5
        )
    torch.testing.assert_close(denoiser.denoise(noisy.flip(0), 0.5).flip(0), together, rtol=1e-5, atol=1e-5)


def test_bfloat16_runs_close_by_and_returns_float32(tiny) -> None:
    denoiser, noisy = tiny.denoiser(), tiny.images(4)
    exact, fast = denoiser.denoise(noisy, 0.25), denoiser.denoise(noisy, 0.25, autocast=True)
    assert fast.dtype == torch.float32
    assert not torch.equal(fast, exact)
    torch.testing.assert_close(fast, exact, rtol=0, atol=0.05)


def test_attention_is_put_where_asked(tiny) -> None:
    unet = tiny.denoiser(block_out_channels=(8, 8), attention_levels=(1,)).unet
    assert unet.config.down_block_types == ("DownBlock2D", "AttnDownBlock2D")
    assert unet.config.up_block_types == ("AttnUpBlock2D", "UpBlock2D")


def test_sizes_that_do_not_fit_are_refused(tiny) -> None:
    with pytest.raises(InputError, match="multiple of 4"):
        tiny.denoiser((1, 10, 10), space_to_depth=2)
    with pytest.raises(InputError, match="prediction_type"):
        Denoiser(tiny.denoiser().unet, DDPMScheduler(1000, prediction_type="noise"))
    blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}
    two = UNet2DModel(8, 1, 2, block_out_channels=(8,), norm_num_groups=4, **blocks)
    with pytest.raises(InputError, match="1 channels in and 2 out"):
        Denoiser(two, DDPMScheduler(1000))


@pytest.mark.parametrize("factor", [1, 2])
def test_save_and_load_give_the_same_bits(factor, tiny, tmp_path: Path) -> None:
    denoiser = tiny.denoiser(
        space_to_depth=factor, prediction_type="v_prediction", beta_schedule="squaredcos_cap_v2"
    )
    denoiser.save_pretrained(tmp_path)
    loaded = Denoiser.from_pretrained(tmp_path)
    assert (loaded.space_to_depth, loaded.prediction_type) == (factor, "v_prediction")
    assert not loaded.training
    assert torch.equal(loaded.denoise(tiny.images(2), 0.5), denoiser.denoise(tiny.images(2), 0.5))
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".bin", ".pt", ".pkl")]


def test_plain_diffusers_loads_the_folder_and_samples(tiny, tmp_path: Path) -> None:
    tiny.denoiser(prediction_type="epsilon").save_pretrained(tmp_path)
    pipeline = DDPMPipeline.from_pretrained(tmp_path)
    pipeline.set_progress_bar_config(disable=True)
    made = pipeline(
        2, generator=torch.Generator().manual_seed(0), num_inference_steps=3, output_type="np"
    ).images
    assert made.shape == (2, 8, 8, 1)
    assert made.min() >= 0
    assert made.max() <= 1


def test_a_folder_of_plain_diffusers_is_a_denoiser(tiny, tmp_path: Path) -> None:
    unet = tiny.denoiser().unet
    DDPMPipeline(unet, DDPMScheduler(500, beta_schedule="squaredcos_cap_v2")).save_pretrained(tmp_path)
    loaded = Denoiser.from_pretrained(tmp_path)
    assert (loaded.space_to_depth, loaded.prediction_type, len(loaded.alphas_cumprod)) == (1, "epsilon", 500)
    u, t = tiny.images(2), torch.tensor([7, 9])
    assert torch.equal(loaded(u, t), unet(u, t).sample)


@pytest.fixture
def saved(tiny, tmp_path: Path) -> Path:
    tiny.denoiser().save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("part", ["unet", "scheduler"])
def test_a_missing_part_is_named(part: str, saved: Path) -> None:
    shutil.rmtree(saved / part)
    with pytest.raises(FileNotFoundError, match=f"no {part}/ folder"):
        Denoiser.from_pretrained(saved)


def test_weights_that_do_not_fit_are_refused_not_drawn_at_random(saved: Path) -> None:
    (path,) = (saved / "unet").glob("*.safetensors")
    tensors = load_file(path)
    key = "conv_in.weight"
    kept = tensors.pop(key)
    save_file(tensors, path)
    with pytest.raises(InputError, match=r"missing_keys.*conv_in\.weight"):
        Denoiser.from_pretrained(saved)
    save_file({**tensors, key: kept[:1].contiguous()}, path)
    with pytest.raises(InputError, match="size mismatch"):
        Denoiser.from_pretrained(saved)
    path.write_bytes(b"damaged")
    with pytest.raises(InputError, match="cannot be read"):
        Denoiser.from_pretrained(saved)
    path.unlink()
    with pytest.raises(InputError, match="no file named"):
        Denoiser.from_pretrained(saved)


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", json.dumps({"space_to_depth": 0}), '{"space_to_depth": "2"}']
)
def test_a_damaged_factor_is_refused(content: str, saved: Path) -> None:
    (saved / "denoiser.json").write_text(content)
    with pytest.raises(InputError, match=r"denoiser\.json"):
        Denoiser.from_pretrained(saved)
