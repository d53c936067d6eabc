"""The configurations that docs/scaling.md hands out: accelerate's own loader takes them as they are meant."""

from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import DistributedType

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "configs" / "accelerate"
# name: processes, machines, whether the launcher starts several processes, whether it forces the CPU
MEANT = {
    "one_cpu": (1, 1, False, True),
    "cpu_processes": (
        2,
        1,
        True,
        False,
    ),  # to the CPU by ACCELERATE_USE_CPU=true: with use_cpu one process starts
    "one_gpu": (1, 1, False, False),
    "several_gpus": (8, 1, True, False),
    "several_nodes": (16, 2, True, False),
}


def test_every_file_is_listed() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == set(MEANT)


@pytest.mark.parametrize("name", MEANT)
def test_accelerate_reads_it(name: str) -> None:
    processes, machines, several, on_cpu = MEANT[name]
    config = load_config_from_file(str(FOLDER / f"{name}.yaml"))
    assert (config.num_processes, config.num_machines) == (processes, machines)
    assert config.distributed_type == (DistributedType.MULTI_GPU if several else DistributedType.NO)
    assert config.use_cpu is on_cpu
    assert (
        config.mixed_precision == "no"
    )  # a training's own option decides; certificates are computed in float32
    assert (config.main_process_ip is not None) == (machines > 1)


@pytest.mark.parametrize("name", MEANT)
def test_the_page_and_the_file_say_how_to_use_it(name: str) -> None:
    wanted = f"--config_file configs/accelerate/{name}.yaml"
    assert wanted in (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    assert wanted in (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
