"""Small players on a small backbone. The folder is put on the path for `parts`, as pytest's importlib mode does not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from diffad.backbones import Backbone

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def backbone_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a backbone of 8 features of 16 x 16 images, which nobody trained."""
    from parts import backbone

    folder = tmp_path_factory.mktemp("backbone")
    backbone(16).save_pretrained(folder)
    return folder


@pytest.fixture
def extractor() -> Backbone:
    """The same for images of 8 x 8."""
    from parts import backbone

    return backbone(8)
