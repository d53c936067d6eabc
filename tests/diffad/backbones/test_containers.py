import hashlib
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from certify.checks import InputError
from diffad.backbones.containers import read_weights, sha256

WEIGHTS = {"fc.weight": torch.arange(6.0).view(2, 3)}


class Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("container", [None, "model", "state_dict", "model_state_dict"])
def test_state_dicts_and_their_containers(tmp_path: Path, container: str | None) -> None:
    path = tmp_path / "weights.pt"
    torch.save(WEIGHTS if container is None else {container: WEIGHTS, "epoch": 7}, path)
    tensors, facts = read_weights(path)
    assert torch.equal(tensors["fc.weight"], WEIGHTS["fc.weight"])
    assert facts == ({} if container is None else {"epoch": 7})


def test_averaged_weights_come_first(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    other = {"fc.weight": torch.zeros(2, 3)}
    torch.save({"unaveraged_model_state_dict": other, "model_state_dict": WEIGHTS}, path)
    assert torch.equal(read_weights(path)[0]["fc.weight"], WEIGHTS["fc.weight"])


def test_safetensors(tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "weights.safetensors")
    assert torch.equal(read_weights(tmp_path / "weights.safetensors")[0]["fc.weight"], WEIGHTS["fc.weight"])
    (tmp_path / "weights.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be read"):
        read_weights(tmp_path / "weights.safetensors")


def test_a_malicious_pickle_is_refused_with_its_hash_and_not_executed(tmp_path: Path) -> None:
    path, target = tmp_path / "evil.pt", tmp_path / "executed"
    torch.save({"model": WEIGHTS, "schedule": Malicious(target)}, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert sha256(path) == digest
    with pytest.raises(InputError, match=f"would run its code.*--trust_pickle {digest}"):
        read_weights(path)
    with pytest.raises(InputError, match=f"has the SHA-256 {digest}; it is not opened"):
        read_weights(path, trust_pickle="0" * 64)
    assert not target.exists()
    tensors, _ = read_weights(path, trust_pickle=digest)  # the trap is a real one
    assert target.exists()
    assert set(tensors) == {"fc.weight"}


def test_what_is_no_state_dict_is_named(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    with pytest.raises(InputError, match="no such file"):
        read_weights(path)
    torch.save([1, 2], path)
    with pytest.raises(InputError, match="holds a list"):
        read_weights(path)
    torch.save({"fc.weight": torch.zeros(1), "schedule": 3.0}, path)
    with pytest.raises(InputError, match=r"these are none: \['schedule'\]"):
        read_weights(path)
    torch.save({}, path)
    with pytest.raises(InputError, match="it is empty"):
        read_weights(path)
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="is no checkpoint"):
        read_weights(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"hello", "is no checkpoint"),
        (b"", "is no checkpoint"),
        (b"<html>404", "is no checkpoint"),
        (b"PKxx", "cut off"),
    ],
)
def test_a_damaged_file_is_not_called_a_pickle_to_trust(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "file.pt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        read_weights(path)
    assert "trust" not in str(caught.value)


def test_a_truncated_checkpoint_is_called_so(tmp_path: Path) -> None:
    path = tmp_path / "whole.pt"
    torch.save({"weight": torch.zeros(100)}, path)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(InputError, match="cut off or damaged"):
        read_weights(path)
