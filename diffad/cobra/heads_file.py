"""The heads of a saved detector: one safetensors file in a folder of its own; their sizes are those of its tensors."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_file

from certify.checks import InputError
from certify.files import write_atomic
from diffad import folder
from diffad.cobra.network import Heads


def save_heads(heads: Heads, directory: Path) -> None:
    """Write the heads."""
    directory.mkdir(parents=True, exist_ok=True)
    plain = {key: tensor.detach().cpu().contiguous() for key, tensor in heads.state_dict().items()}
    write_atomic(directory / folder.TENSORS, lambda path: save_file(plain, path, metadata={"format": "pt"}))


def load_heads(directory: Path) -> Heads:
    """Return the heads, strict about names, dtypes and shapes that fit together."""
    tensors = folder.read_tensors(directory, Heads(1, 1, 2).state_dict())
    embedding, features = tensors["projection.2.weight"].shape
    heads = Heads(features, embedding, len(tensors["classifier.weight"]))
    try:
        heads.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        raise InputError(f"{directory / folder.TENSORS}: {folder.one_line(error)}") from error
    return heads
