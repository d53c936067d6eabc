"""A run to verify, and a copy of it to damage; tests here import `verifying` beside them."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from certify import console
from certify.cli import main

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode does not add it


@pytest.fixture(scope="session")
def recorded(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the tiny network with its network-free rows."""
    from verifying import FAST

    folder = tmp_path_factory.mktemp("recorded") / "run"
    argv = ["--detector", str(trained), "--output_dir", str(folder), *FAST]
    assert main(argv) == console.DONE
    return folder


@pytest.fixture
def run(recorded: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(recorded, tmp_path / "run"))
