"""How a foreign detector is named on the command line: `KIND:WHAT,name=value`, or `module:function`.

| name                                          | is                                                        |
|-----------------------------------------------|-----------------------------------------------------------|
| `sklearn:IsolationForest,n_estimators=200`    | an outlier detector of scikit-learn                       |
| `pyod:IForest`                                | one of PyOD                                               |
| `pytorch_ood:ViM,d=64,backbone=runs/classifier` | one of pytorch-ood, on a classifier               |
| `onnx:score.onnx,output=score`                | an ONNX file                                              |
| `anomalib:Patchcore,weights=resnet18.safetensors` | a model of anomalib                                  |
| `purified:runs/zarnd,diffusion=runs/digits,sigma=0.25` | DiffPure in front of a detector |
| `my_scores:brightness,max_batch=8`            | a function of a module in the current folder              |
| `my_detectors:Brightness,power=2`             | a class derived from `Detector`, with its arguments       |
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from certify.checks import InputError
from diffad.detector import Detector

# Keys of `diffad.DETECTORS` whose classes have `from_spec(what, options)`.
ADAPTERS = ("sklearn", "pyod", "pytorch_ood", "onnx", "anomalib", "purified")
_SPEC = re.compile(r"(?P<kind>[A-Za-z_][\w.]*):(?P<what>[^,]+)(?P<options>(,[A-Za-z_]\w*=[^,]*)*)")
_NAME = re.compile(r"[A-Za-z_][\w.]*")


def is_spec(text: str) -> bool:
    """Say whether `text` names a foreign detector; a folder of that name comes first."""
    found = _SPEC.fullmatch(text)
    if found is None or Path(text).is_dir():
        return False
    return found["kind"] in ADAPTERS or _NAME.fullmatch(found["what"]) is not None


def trained_folder(text: str) -> Path | None:
    """Return the folder whose training data a name stands for: of the detector that `purified` stands in front of.

    That of the diffusion model where the detector behind is to be fitted; None for a name without a folder.
    """
    found = _SPEC.fullmatch(text)
    if found is None or found["kind"] != "purified":
        return None
    folders = [found["what"], str(_options(found["options"]).get("diffusion", ""))]
    return next((Path(folder) for folder in folders if folder and Path(folder).is_dir()), None)


def from_spec(text: str) -> Detector:
    """Return the detector that `text` names, not fitted unless it is an object that is."""
    found = _SPEC.fullmatch(text)
    if found is None:
        raise InputError(f"detector: got {text!r}, need KIND:WHAT,name=value or module:function")
    from diffad.registry import detector_class  # which builds on this module

    options = _options(found["options"])
    if found["kind"] in ADAPTERS:
        adapter: Any = detector_class(found["kind"])
        detector: Detector = adapter.from_spec(found["what"], options)
        return detector
    return _from_module(f"{found['kind']}:{found['what']}", options)


def _from_module(what: str, options: dict[str, Any]) -> Detector:
    from diffad.interop.callables import CallableDetector, find_object

    found = find_object(what)
    if isinstance(found, type) and issubclass(found, Detector):
        try:
            return found(**options)
        except TypeError as error:
            raise InputError(f"detector: {what} does not take {options} ({error})") from error
    if isinstance(found, type):
        raise InputError(
            f"detector: {what} is a class, need a function, an object or a class derived from diffad.Detector"
        )
    if isinstance(found, Detector):
        if options:
            raise InputError(f"detector: {what} is a finished detector and takes no options, got {options}")
        return found
    return CallableDetector(what, options).attach(found)


def _options(text: str) -> dict[str, Any]:
    """Read `,name=value,...`; values as YAML reads them: numbers, true, false, null, text."""
    options: dict[str, Any] = {}
    for part in text.split(",")[1:]:
        name, _, value = part.partition("=")
        try:
            options[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            options[name] = value
        if name in options and not isinstance(options[name], str | int | float | bool | None):
            raise InputError(f"detector: got {part!r}, need a number, true, false, null or text")
    return options
