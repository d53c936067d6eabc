import subprocess
import sys

import pytest

from certify.checks import InputError
from diffad import world_size


def test_fewer_processes_than_promised_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world_size, "launcher_arguments", lambda: ["--num_processes", "2", "train_ddpm.py"])
    with pytest.raises(
        InputError, match="ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes 2"
    ):
        world_size.check_world_size(1)
    monkeypatch.setattr(world_size, "launcher_arguments", lambda: None)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="WORLD_SIZE is 2 but 1"):
        world_size.check_world_size(1)


def test_certify_and_attack_do_not_load_what_only_a_training_needs() -> None:
    heavy = ("accelerate", "diffusers", "torchvision")
    code = (
        "import sys, diffad.commands.attack, diffad.commands.certify\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
