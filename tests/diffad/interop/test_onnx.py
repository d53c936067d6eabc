"""ONNX files as black boxes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from certify.checks import InputError
from diffad import load_detector
from diffad.interop import OnnxDetector

NORMALS = torch.rand(7, 1, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def graph(tmp_path: Path) -> Any:
    """Write a graph that returns the mean and the largest pixel of each image; the file's path."""
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT

    def write(outputs: tuple[str, ...] = ("mean",), batch: str | int = "batch") -> str:
        nodes = [
            helper.make_node("ReduceMean", ["images"], ["mean"], axes=[1, 2, 3], keepdims=0),
            helper.make_node("ReduceMax", ["images"], ["largest"], axes=[1, 2, 3], keepdims=0),
        ]
        images = helper.make_tensor_value_info("images", kind, [batch, 1, 4, 4])
        made = helper.make_graph(
            [node for node in nodes if node.output[0] in outputs],
            "score",
            [images],
            [helper.make_tensor_value_info(name, kind, [batch]) for name in outputs],
        )
        model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        onnx.save(model, str(tmp_path / "score.onnx"))
        return str(tmp_path / "score.onnx")

    return write


@pytest.mark.parametrize("batch", ["batch", 1, 3])
def test_scores_are_those_of_the_graph_whatever_its_batch(graph: Any, batch: str | int) -> None:
    detector = OnnxDetector(graph(batch=batch)).fit(NORMALS)
    torch.testing.assert_close(detector.score(NORMALS), NORMALS.mean((1, 2, 3)))
    assert not detector.has_gradient


def test_an_output_is_chosen_and_turned(graph: Any) -> None:
    path = graph(("mean", "largest"))
    detector = load_detector(f"onnx:{path},output=largest,negate=true").fit(NORMALS)
    torch.testing.assert_close(detector.score(NORMALS), -NORMALS.flatten(1).amax(1))
    assert detector.score_name == "score.largest"
    for options, words in (({}, "choose one"), ({"output": "x"}, "allowed are mean, largest")):
        with pytest.raises(InputError, match=words):
            OnnxDetector(path, options).fit(NORMALS)


def test_the_folder_is_whole(graph: Any, tmp_path: Path) -> None:
    path = graph()
    detector = OnnxDetector(path).fit(NORMALS)
    detector.save_pretrained(tmp_path / "saved")
    Path(path).unlink()
    loaded = load_detector(tmp_path / "saved")
    assert torch.equal(loaded.score(NORMALS), detector.score(NORMALS))
    assert loaded.fingerprint() == detector.fingerprint()


def test_what_does_not_fit_is_refused(graph: Any, tmp_path: Path) -> None:
    path = graph()
    with pytest.raises(InputError, match=r"takes images \(1, 4, 4\), got \(1, 5, 5\)"):
        OnnxDetector(path).fit(torch.rand(3, 1, 5, 5))
    (tmp_path / "broken.onnx").write_bytes(b"no graph")
    with pytest.raises(InputError, match="onnxruntime cannot read it"):
        OnnxDetector(str(tmp_path / "broken.onnx")).fit(NORMALS)
    with pytest.raises(InputError, match="is no file"):
        OnnxDetector(str(tmp_path / "missing.onnx")).fit(NORMALS)
    with pytest.raises(InputError, match="unknown options"):
        OnnxDetector(path, {"outputs": "mean"})


def test_weights_in_another_file_are_refused(
    graph: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would be read from the current folder, and saved and identified by nobody."""
    onnx = pytest.importorskip("onnx")
    monkeypatch.chdir(tmp_path)
    model = onnx.load(graph())
    weights = onnx.numpy_helper.from_array(torch.ones(4, 4).numpy(), "weights")
    model.graph.initializer.append(weights)
    onnx.external_data_helper.set_external_data(model.graph.initializer[0], "weights.bin")
    (tmp_path / "weights.bin").write_bytes(weights.raw_data)
    model.graph.initializer[0].ClearField("raw_data")
    model.graph.node[0].input[0] = "weighted"
    model.graph.node.insert(0, onnx.helper.make_node("Mul", ["images", "weights"], ["weighted"]))
    (tmp_path / "beside.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="external_data=False"):
        OnnxDetector("beside.onnx").fit(NORMALS)
