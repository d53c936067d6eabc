"""Numbers of the documents that are computed, not measured; and settings that they quote of recorded runs."""

from __future__ import annotations

import re

import pytest
from diffusers import DDPMScheduler
from recorded import results
from tracing import agrees, read

from certify.bounds import max_radius
from diffad.diffusion.schedule import sigmas_of_schedule


@pytest.mark.parametrize("page", ["docs/certificates.md", "paper_repro/cohen2019/README.md"])
def test_what_a_thousand_draws_can_prove(page: str) -> None:
    (quoted,) = set(re.findall(r"([\d.]+) σ(?= for n = 1000|\))", read(page)))
    assert agrees(quoted, max_radius(1000, 1.0, 0.001))


def test_the_radius_that_covers_linf() -> None:
    (quoted,) = re.findall(r"32 x 32 x 3, Linf 8/255 needs r = ([\d.]+\d)", read("docs/threat_models.md"))
    assert agrees(quoted, 8 / 255 * (32 * 32 * 3) ** 0.5)


def test_the_noise_of_the_base_step_of_advrad() -> None:
    (step, quoted) = re.findall(r"step k = (\d+) \(σ = (\.\d+) in", read("paper_repro/advrad/README.md"))[0]
    noise = sigmas_of_schedule(DDPMScheduler(1000).alphas_cumprod)  # step k is at place k - 1
    assert agrees(quoted, noise[int(step) - 1])


def test_several_candidates_on_textures_certify_everything() -> None:
    found = results("textures/selection-reference.json")["candidates"]
    assert "several candidates certified 1.000" in read("docs/results/README.md")
    assert sum(min(candidate["certified"]) > 0.9995 for candidate in found) > 2


def test_the_figure_of_the_readme_says_what_was_run() -> None:
    found = re.search(
        r"(\d+) \+ (\d+) test images;.*?n = (\d+) draws at a total error probability of ([\d.]+) a cell",
        read("README.md"),
        re.DOTALL,
    )
    assert found is not None
    normal, anomalous, n, alpha = found.groups()
    for part in ("", "-denoise", "-input", "-zarnd", "-cobra", "-atd"):
        manifest = results(f"digits-8{part}/manifest.json")
        probe = manifest["data"]["probe"]
        assert (probe["test_normals"], probe["test_anomalies"]) == (int(normal), int(anomalous))
        command = next(one for one in manifest["commands"] if one["command"] == "certify")["config"]
        assert (command["n"], command["alpha"]) == (int(n), float(alpha))
