from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets

from certify.checks import InputError
from diffad.data import load_data
from diffad.data.torchvision_sets import COARSE, FINE_TO_COARSE, SETS, default_root, torchvision_set


def write_mnist(root: Path, train: int = 120, test: int = 40) -> None:
    """Write a small set in MNIST's own format."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", train), ("t10k", test)):
        pixels = np.random.default_rng(count).integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 2
        header = struct.pack(">BBBBIII", 0, 0, 8, 3, count, 28, 28)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(
            struct.pack(">BBBBI", 0, 0, 8, 1, count) + labels.tobytes()
        )


def test_mnist_from_its_files(tmp_path):
    write_mnist(tmp_path)
    split = load_data("mnist", normal_class=1, root=tmp_path, download=False, limit=5)
    assert split.name == "mnist:1"
    assert split.test.defects == ("good",) * 5 + ("0",) * 5
    assert (split.resolution, split.channels) == (28, 1)
    assert len(split.train) + len(split.calibration) + len(split.validation.normals()) == 60


@pytest.mark.parametrize("name", SETS)
def test_a_missing_set_says_where_to_get_it(tmp_path, name):
    with pytest.raises(InputError, match=f"{name}: cannot be read or downloaded") as error:
        torchvision_set(name, root=tmp_path, download=False)
    assert SETS[name].page in str(error.value)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_failed_download_is_one_line(tmp_path, monkeypatch, capsys):
    calls = []

    class Offline:
        def __init__(self, root, download, split):
            calls.append(download)
            raise RuntimeError("no route to host\nsecond line" if download else "not found")

    monkeypatch.setattr(torchvision.datasets, "SVHN", Offline)
    with pytest.raises(InputError, match=r"svhn: .*no route to host\)") as error:
        torchvision_set("svhn", root=tmp_path)
    assert calls == [False, True]
    assert "second line" not in str(error.value)
    assert "downloading" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "shape", "field"), [("svhn", (3, 32, 32), "labels"), ("cifar10", (32, 32, 3), "targets")]
)
def test_every_memory_layout_becomes_channel_height_width(tmp_path, monkeypatch, name, shape, field):
    class Present:
        def __init__(self, root, download, **which):
            self.data = np.zeros((2, *shape), dtype=np.uint8)
            np.moveaxis(self.data, shape.index(3) + 1, 1)[:, 0] = 255  # red
            setattr(self, field, [0, 1])

    monkeypatch.setattr(torchvision.datasets, SETS[name].reader, Present)
    image, _ = torchvision_set(name, root=tmp_path).train.read(1)
    assert image.shape == (3, 32, 32)
    assert image.mean(dim=(1, 2)).tolist() == [1.0, 0.0, 0.0]


def test_superclasses_of_cifar100():
    assert len(FINE_TO_COARSE) == 100
    assert all(FINE_TO_COARSE.count(coarse) == 5 for coarse in range(20))
    members = {"people": (2, 11, 35, 46, 98), "trees": (47, 52, 56, 59, 96), "fish": (1, 32, 67, 73, 91)}
    for name, fine in members.items():
        assert {COARSE[FINE_TO_COARSE[label]] for label in fine} == {name}


def test_root_comes_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("DIFFAD_DATA", str(tmp_path))
    assert default_root() == tmp_path
    monkeypatch.delenv("DIFFAD_DATA")
    assert default_root().parts[-2:] == ("diffad", "data")
