"""Lets the tests here import the modules beside them: pytest's importlib mode does not add their folder."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def _trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The module of `callable_score` is not in the current folder."""
    monkeypatch.setenv("DIFFAD_TRUSTED_MODULES", "contract_detectors")
