"""The detectors by name, and loading one from a folder or by name."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from certify.checks import InputError, check_choice
from diffad.detector import Detector
from diffad.folder import CONFIG, read_config
from diffad.interop.spec import from_spec, is_spec

# "module:Class", so that importing diffad does not import diffusers and whatever else a detector needs.
DETECTORS: dict[str, str] = {
    "pixel_mean": "diffad.baselines.pixel_mean:PixelMean",
    "pca": "diffad.baselines.pca:PCA",
    "pixel_nn": "diffad.baselines.pixel_nn:PixelNN",
    "patch_nn": "diffad.baselines.patch_nn:PatchNN",
    "closed_form": "diffad.baselines.closed_form:ClosedForm",
    "autoencoder": "diffad.baselines.autoencoder:Autoencoder",
    "deep_svdd": "diffad.baselines.deep_svdd:DeepSVDD",
    "lipschitz_net": "diffad.baselines.lipschitz_net:LipschitzNet",
    "generated_nn": "diffad.baselines.generated_nn:GeneratedNN",
    "diffusion": "diffad.diffusion.detector:DiffusionDetector",
    "zarnd": "diffad.zarnd.detector:Zarnd",
    "cobra": "diffad.cobra.detector:Cobra",
    "atd": "diffad.atd.detector:Atd",
    "msp": "diffad.ood_scores.logit_scores:MaximumSoftmax",
    "max_logit": "diffad.ood_scores.logit_scores:MaxLogit",
    "energy": "diffad.ood_scores.logit_scores:Energy",
    "mahalanobis": "diffad.ood_scores.mahalanobis:Mahalanobis",
    "relative_mahalanobis": "diffad.ood_scores.mahalanobis:RelativeMahalanobis",
    "openmax": "diffad.ood_scores.openmax:OpenMax",
    "purified": "diffad.diffusion.purified:Purified",
    "callable": "diffad.interop.callables:CallableDetector",
    "sklearn": "diffad.interop.outliers:SklearnDetector",
    "pyod": "diffad.interop.outliers:PyODDetector",
    "pytorch_ood": "diffad.interop.pytorch_ood:PytorchOODDetector",
    "onnx": "diffad.interop.onnx:OnnxDetector",
    "anomalib": "diffad.interop.anomalib:AnomalibDetector",
}

# What a command can fit by its bare name; the others need a network, a folder or somebody else's code.
BARE = (
    "pixel_mean",
    "pca",
    "pixel_nn",
    "patch_nn",
    "closed_form",
    "autoencoder",
    "deep_svdd",
    "lipschitz_net",
)


def detector_class(name: str) -> type[Detector]:
    """Return the class of a detector in `DETECTORS`, importing its module now."""
    module, _, attribute = DETECTORS[check_choice(name, tuple(DETECTORS), "detector")].partition(":")
    found: type[Detector] = getattr(import_module(module), attribute)
    return found


def is_name(text: str) -> bool:
    """Say whether `text` names a detector to be fitted, instead of the folder of a fitted one."""
    return text in DETECTORS or is_spec(text)


def load_detector(path_or_name: Path | str) -> Detector:
    """Return the fitted detector of a folder or, for a name, a new one.

    A name is a key of `DETECTORS`, with default arguments, or that of a foreign detector (`diffad.interop.spec`). A
    string that is a key is never read as a folder: write ./pixel_nn for a folder of that name.
    """
    if isinstance(path_or_name, str) and path_or_name in DETECTORS:
        return detector_class(path_or_name)()
    if isinstance(path_or_name, str) and is_spec(path_or_name):
        return from_spec(path_or_name)
    directory = Path(path_or_name)
    if not directory.is_dir():
        raise InputError(
            f"detector: {str(path_or_name)!r} is neither the folder of a fitted detector nor one of "
            f"{', '.join(BARE)}, nor a name like module:function or sklearn:IsolationForest"
        )
    name = read_config(directory)["name"]
    if name not in DETECTORS:
        raise InputError(
            f"{directory / CONFIG}: unknown detector {name!r}, allowed are {', '.join(DETECTORS)}"
        )
    return detector_class(name).from_pretrained(directory)
