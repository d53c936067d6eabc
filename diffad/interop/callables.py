"""Any function or `torch.nn.Module` as a detector: `--detector module:function`, or `as_detector(score)`.

>>> import torch
>>> from diffad.interop import as_detector
>>> detector = as_detector(lambda images: images.mean((1, 2, 3))).fit(torch.rand(8, 1, 4, 4))
>>> detector.score(torch.rand(3, 1, 4, 4)).shape
torch.Size([3])
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from certify.checks import InputError
from diffad.detector import Detector
from diffad.folder import one_line
from diffad.interop.foreign import ForeignDetector
from diffad.interop.trust import check_own, check_trusted, source_digest

OPTIONS = ("max_batch", "negate", "numpy")


class CallableDetector(ForeignDetector):
    """A function of a batch of images that returns one score each, higher = more anomalous; nothing is fitted.

    Whether it has a gradient is found out by `fit`, which scores a few images; without one, attacks that need scores
    only remain. A folder keeps the *name* of the function, a probe and its scores, never code: loading it imports that
    module if it is the user's own (`diffad.interop.trust`), and refuses a function that no longer gives those scores
    or whose file was edited. A function without an importable name cannot be saved.

    Args:
        what: `module:function`, also `module:object.method`.
        options: `max_batch`, images a call at most (for a slow or remote scorer); `negate`, for a score that is higher
            for normal images; `numpy`, to hand over float32 arrays (b, c, h, w) instead of tensors.
    """

    name: ClassVar[str] = "callable"
    source: Tensor

    def __init__(self, what: str = "", options: Mapping[str, Any] | None = None) -> None:
        super().__init__(what, options)
        check_options(self.options)
        self.register_buffer("source", torch.empty(0, dtype=torch.uint8))
        self.scorer: Callable[..., Any] | None = None

    def attach(self, scorer: Any) -> CallableDetector:
        """Score by this function; a module is put into evaluation mode."""
        if not callable(scorer):
            raise InputError(f"{self._title}: is a {type(scorer).__name__}, need a function of images")
        self.scorer = scorer.eval() if isinstance(scorer, nn.Module) else scorer
        return self

    @property
    def score_name(self) -> str:
        """The function's name."""
        return super().score_name or getattr(self.scorer, "__name__", type(self.scorer).__name__)

    def _prepare(self, train: Tensor, seed: int) -> None:
        if self.scorer is None:
            self.attach(find_object(self.what))
        self.source = source_digest(self.what, self.scorer).to(train.device)
        self.has_gradient = not self.options.get("numpy", False) and self._reaches(train[:1])

    def _restore(self, directory: Path) -> None:
        check_trusted(self.what)
        found = find_object(self.what)
        check_own(found, self.what)
        saved = self.source
        self.attach(found)._prepare(self.probe, 0)
        if not torch.equal(self.source, saved):
            raise InputError(f"{self._title}: its file was edited since {directory} was saved; fit it again")

    def _save_parts(self, directory: Path) -> None:
        if not self.what or find_object(self.what) is not self.scorer:
            raise InputError(
                f"{self._title}: a function without an importable name cannot be saved; put it into a module and name "
                "it module:function"
            )

    def _foreign(self, images: Tensor) -> Any:
        size = self.options.get("max_batch")
        if size is None:
            return self._call(images)
        return torch.cat([self._call(batch) for batch in torch.split(images, size)])

    def _call(self, images: Tensor) -> Tensor:
        assert self.scorer is not None
        given = images.detach().float().cpu().numpy() if self.options.get("numpy") else images
        try:
            returned = self.scorer(given)
        except InputError:
            raise  # one line already
        except Exception as error:  # whatever the user's function does; its trace is the cause
            # NumPy in the function refuses an image with a graph, which `_reaches` asks for; an exporter reads its own
            if "requires grad" in str(error) or torch.compiler.is_exporting():
                raise
            kind = "an array" if self.options.get("numpy") else "a tensor"
            raise InputError(
                f"{self._title}: raised {type(error).__name__}: {one_line(error)}, given {kind} of shape "
                f"{tuple(given.shape)}; need a function of images (b, c, h, w) that returns (b,)"
            ) from error
        scores = self._as_tensor(returned)
        return -scores if self.options.get("negate") else scores

    def _reaches(self, image: Tensor) -> bool:
        """Say whether a gradient reaches the image; what else goes wrong is raised again by the first score."""
        with torch.inference_mode(False), torch.enable_grad():
            leaf = image.detach().clone().requires_grad_()
            try:
                scores = self._call(leaf)
            except (RuntimeError, TypeError) as error:  # what NumPy and torch say of an image with a graph
                if "requires grad" in str(error):
                    return False
                raise
            if not scores.requires_grad:
                return False
            (gradient,) = torch.autograd.grad(scores.sum(), leaf, allow_unused=True)
        return gradient is not None


def as_detector(
    score: Any, *, negate: bool = False, max_batch: int | None = None, numpy: bool = False
) -> Detector:
    """Return any `score(images) -> (b,)` as a detector; call `fit(normal images)` next, which sets shape and threshold.

    The options are those of `CallableDetector`. A `Detector` is returned as it is.
    """
    if isinstance(score, Detector):
        return score
    given = {"negate": negate, "max_batch": max_batch, "numpy": numpy}
    options = {name: value for name, value in given.items() if value}
    return CallableDetector(importable_name(score), options).attach(score)


def importable_name(score: Any) -> str:
    """Return `module:name` if importing that gives this very object; empty otherwise, as for a lambda."""
    module, name = getattr(score, "__module__", None), getattr(score, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or module == "__main__":
        return ""
    try:
        found = attrgetter(name)(sys.modules[module])
    except (AttributeError, KeyError):
        return ""
    return f"{module}:{name}" if found is score else ""


def find_object(what: str) -> Any:
    """Return what `module:name` names; the current folder is searched first, as `python -m` does."""
    module_name, _, name = what.partition(":")
    if not module_name or not name:
        raise InputError(f"callable: got {what!r}, need module:function, such as my_scores:brightness")
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        raise InputError(
            f"detector: {what!r} needs the module {error.name!r}, which is neither in {here} nor installed"
        ) from error
    except Exception as error:  # whatever the user's module does when it is imported
        raise InputError(
            f"detector: importing {module_name!r} failed ({type(error).__name__}: {one_line(error)})"
        ) from error
    finally:
        sys.path.remove(here)
    try:
        return attrgetter(name)(module)
    except AttributeError:
        raise InputError(f"detector: module {module_name!r} ({module.__file__}) has no {name!r}") from None


def check_options(options: Mapping[str, Any]) -> None:
    """Refuse unknown options of a function, and values out of range."""
    unknown = sorted(set(options) - set(OPTIONS))
    if unknown:
        raise InputError(f"callable: unknown options {unknown}, allowed are {', '.join(OPTIONS)}")
    size = options.get("max_batch")
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
        raise InputError(f"callable: got max_batch = {size}, need a whole number of at least 1")
    for name in ("negate", "numpy"):
        if not isinstance(options.get(name, False), bool):
            raise InputError(f"callable: got {name} = {options[name]!r}, need true or false")
