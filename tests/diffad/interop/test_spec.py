"""Names of foreign detectors on the command line, and what is said when a package is missing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from certify.checks import InputError
from diffad import Detector, load_detector
from diffad.interop import CallableDetector, OnnxDetector, SklearnDetector
from diffad.interop.extras import optional
from diffad.interop.spec import is_spec

NORMALS = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))
MODULE = """
import torch
from diffad import Detector
from diffad.baselines.pixel_mean import PixelMean

NUMBER = 3

def brightness(images):
    return images.mean((1, 2, 3))

class Brightness(Detector):
    name = "brightness"

    def __init__(self, power=1.0):
        super().__init__()
        self.power = power

    def _fit(self, train, seed):
        pass

    def _score(self, images, noise):
        return brightness(images) ** self.power

class Plain:
    pass

fitted = PixelMean().fit(torch.full((2, 1, 4, 4), 0.5))
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module that lies in the current folder."""
    name = f"of_a_user_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    (tmp_path / "broken_of_a_user.py").write_text("1 / 0")
    monkeypatch.chdir(tmp_path)
    return name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sklearn:IsolationForest", True),
        ("sklearn:IsolationForest,n_estimators=20,max_samples=0.5", True),
        ("onnx:some/folder/score.onnx", True),
        ("my_scores:brightness", True),
        ("package.module:object.method,max_batch=3", True),
        ("runs/robust", False),
        ("./sklearn:IsolationForest", False),
        ("pixel_nn", False),
        ("my_scores:a/b", False),
        ("sklearn:", False),
        ("sklearn:IsolationForest,20", False),
    ],
)
def test_names_are_told_from_folders(text: str, expected: bool) -> None:
    assert is_spec(text) is expected


def test_a_folder_of_that_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    SklearnDetector("KernelDensity").fit(NORMALS).save_pretrained("sklearn:OneClassSVM")
    loaded = load_detector("sklearn:OneClassSVM")
    assert isinstance(loaded, SklearnDetector)
    assert loaded.what == "KernelDensity"


def test_each_kind_is_made_with_its_options() -> None:
    forest = load_detector("sklearn:IsolationForest,n_estimators=20,max_samples=0.5,bootstrap=true")
    assert isinstance(forest, SklearnDetector)
    assert forest.options == {"n_estimators": 20, "max_samples": 0.5, "bootstrap": True}
    graph = load_detector("onnx:some/score.onnx,output=last")
    assert isinstance(graph, OnnxDetector)
    assert (graph.what, graph.options) == ("some/score.onnx", {"output": "last"})


def test_functions_classes_and_objects_of_a_module(module: str) -> None:
    function = load_detector(f"{module}:brightness,max_batch=2")
    assert isinstance(function, CallableDetector)
    torch.testing.assert_close(function.fit(NORMALS).score(NORMALS), NORMALS.mean((1, 2, 3)))
    own = load_detector(f"{module}:Brightness,power=2")
    assert isinstance(own, Detector)
    torch.testing.assert_close(own.fit(NORMALS).score(NORMALS), NORMALS.mean((1, 2, 3)) ** 2)
    assert load_detector(f"{module}:fitted").image_shape == (1, 4, 4)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("no_such_module:score", "needs the module 'no_such_module', which is neither in"),
        ("broken_of_a_user:score", "importing 'broken_of_a_user' failed .ZeroDivisionError"),
        ("MODULE:missing", "has no 'missing'"),
        ("MODULE:NUMBER", "is a int, need a function"),
        ("MODULE:Plain", "is a class, need a function"),
        ("MODULE:Brightness,size=3", "does not take"),
        ("MODULE:fitted,k=3", "takes no options"),
        ("MODULE:brightness,max_batch=[1]", "need a number, true, false"),
        ("sklearn:Forest", "allowed are IsolationForest"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(module: str, text: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as refused:
        load_detector(text.replace("MODULE", module))
    assert "\n" not in str(refused.value)


def test_a_missing_package_is_named_with_the_command_that_installs_it() -> None:
    with pytest.raises(
        InputError, match=r"there is no no_such_package; install it with: pip install 'diffad"
    ):
        optional("no_such_package.models", extra="interop")
