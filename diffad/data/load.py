"""`load_data`: from a name on the command line to four disjoint parts.

>>> from diffad.data import load_data
>>> split = load_data("digits", normal_class=8, limit=10)
>>> split.name, tuple(split.test.images.shape)
('digits:8', (20, 1, 16, 16))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from certify.checks import InputError, check_choice
from diffad.data.assemble import assemble
from diffad.data.cues import cue_probe
from diffad.data.digits import digits
from diffad.data.folder import folder
from diffad.data.mvtec import mvtec
from diffad.data.protocols import (
    PROTOCOLS,
    REST,
    normal_classes,
    one_class,
    ood,
    resolve_class,
    unlabeled_multiclass,
)
from diffad.data.records import GOOD
from diffad.data.reuse import kept
from diffad.data.source import Source
from diffad.data.split import DataSplit
from diffad.data.texture_split import texture_source, texture_split
from diffad.data.torchvision_sets import SETS, torchvision_set


@dataclass(frozen=True)
class Request:
    """The arguments of `load_data`, as they stand in `DataSplit.options`."""

    spec: str
    normal_class: str | int | None = None
    resolution: int | None = None
    channels: int | None = None
    seed: int = 0
    limit: int | None = None
    protocol: str = "one_class"
    outliers: tuple[str, ...] = ()
    group_above: float | None = None
    root: str | None = None
    download: bool = True

    def __post_init__(self) -> None:
        if self.kind not in DATASETS:
            allowed = ", ".join(TAKES_ARGUMENT.get(kind, kind) for kind in DATASETS)
            here = Path(self.spec).expanduser().is_dir()
            hint = f"; did you mean folder:{self.spec} or mvtec:{self.spec}?" if here else ""
            raise InputError(f"data set: got {self.spec!r}, allowed are {allowed}{hint}")
        check_choice(self.protocol, PROTOCOLS, "protocol")
        if self.channels not in (None, 1, 3):
            raise InputError(f"channels: got {self.channels}, allowed are 1 (grey) and 3 (colour)")
        for name, least in (("resolution", 4), ("limit", 1), ("seed", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(f"{name}: got {value}, need at least {least}")
        if self.outliers and self.protocol == "one_class":
            raise InputError("outliers: protocol one_class takes none; use unlabeled_multiclass or ood")
        if self.argument and self.kind not in TAKES_ARGUMENT:
            raise InputError(
                f"data set: {self.kind} takes nothing after the colon, got {self.argument!r}; name the class by "
                "normal_class"
            )

    @property
    def kind(self) -> str:
        """The name of the data set: what stands before the colon."""
        return self.spec.partition(":")[0]

    @property
    def argument(self) -> str:
        """What stands behind the colon: a path or a texture family."""
        return self.spec.partition(":")[2]


def load_data(
    spec: str,
    *,
    normal_class: str | int | None = None,
    resolution: int | None = None,
    channels: int | None = None,
    seed: int = 0,
    limit: int | None = None,
    protocol: str = "one_class",
    outliers: Sequence[str] = (),
    group_above: float | None = None,
    root: str | Path | None = None,
    download: bool = True,
) -> DataSplit:
    """Load a data set as train, calibration, validation and test.

    Args:
        spec: "digits", "textures:FAMILY", "mvtec:PATH", "folder:PATH", or "mnist", "fashion_mnist", "cifar10",
            "cifar100", "svhn" (torchvision).
        normal_class: the class that is normal under `one_class`; not needed where there is only one. Under `ood`
            the normal classes, comma separated ("0,1,2"); default all.
        resolution: side in pixels of the square the images are resized to; default: digits 16, textures 32,
            mvtec 64, others as the files are.
        channels: 1 or 3; default as the files are, all colour where one is.
        seed: cuts the parts, draws the limited test and the synthetic defects.
        limit: test images a side (normals, anomalies); default all (digits: as many anomalies as normals).
        protocol: "one_class", "unlabeled_multiclass" or "ood" (see `diffad.data.protocols`).
        outliers: specs of the data sets that are anomalous under the last two; "rest" is the other classes of the same
            set, "textures" all families of textures.
        group_above: train images whose high-pass correlation exceeds this stay in one part; default .7 for mvtec
            (1 turns it off), none for others.
        root: folder of torchvision sets; default $DIFFAD_DATA, else the platform's cache folder.
        download: whether an absent torchvision set may be downloaded.

    Raises `InputError`, in one line, for unknown names, missing files, damaged images, too few images.
    """
    request = Request(
        spec,
        normal_class,
        resolution,
        channels,
        seed,
        limit,
        protocol,
        tuple(outliers),
        group_above,
        None if root is None else str(root),
        download,
    )
    return kept(request, lambda: DATASETS[request.kind](request))


def _load_source(request: Request) -> DataSplit:
    source = SOURCES[request.kind](request)
    if request.group_above is not None:
        source = replace(source, group_above=request.group_above)
    if request.protocol == "one_class":
        choice = one_class(source, request.normal_class, limit=request.limit, seed=request.seed)
        normal = resolve_class(source, request.normal_class)
        name = source.name if normal == GOOD else f"{source.name}:{normal}"
    else:
        whole, source = source, _normal_source(request, source)
        others = _outliers(request, source, whole)
        protocol = {"unlabeled_multiclass": unlabeled_multiclass, "ood": ood}[request.protocol]
        choice = protocol(source, others, limit=request.limit, seed=request.seed)
        name = f"{source.name}-vs-{'+'.join(other.name for other in others)}"
    split = assemble(
        name, source, choice, seed=request.seed, channels=request.channels, options=_options(request)
    )
    if request.protocol == "one_class":
        return split
    _check_sets_apart(split)
    return replace(split, probe={**split.probe, **cue_probe(split.test)})


def _normal_source(request: Request, source: Source) -> Source:
    """Return the set with its normal classes alone, named after them where they are not all."""
    if request.normal_class is None:
        return source
    if request.protocol != "ood":
        raise InputError(f"normal_class: protocol {request.protocol} takes none, all classes are normal")
    names = normal_classes(source, request.normal_class)
    return replace(source.of_classes(names), name=f"{source.name}:{','.join(names)}")


def _outliers(request: Request, source: Source, whole: Source) -> list[Source]:
    """Return the outlier sets at the size and depth of the normal one, by the same resampler.

    Where the normal set has been enlarged from a smaller size (`Source.native`), every outlier is brought to that size
    and enlarged too: detail that no normal image can have would give it away.
    """
    depth, side, _ = source.train.read(0)[0].shape
    result = []
    for spec in request.outliers:
        if spec == REST:
            result.append(_rest(source, whole))
            continue
        other = replace(
            request, spec=spec, resolution=request.resolution or side, channels=request.channels or depth
        )
        found = OUTLIERS[other.kind](other)
        test = found.test.renamed(f"{found.name}/")
        result.append(replace(found, test=test if source.native is None else test.drawn_by(source.native)))
    return result


def _check_sets_apart(split: DataSplit) -> None:
    """Refuse a picture that is normal in one test set and anomalous in another."""
    seen: dict[str, tuple[int, str]] = {}
    rows = zip(split.test.image_hashes(), split.test.labels.tolist(), split.test.identifiers, strict=True)
    for digest, label, name in rows:
        known, other = seen.setdefault(digest, (label, name))
        if known != label:
            raise InputError(
                f"{split.name}: {other} and {name} are the same picture, one normal and one anomalous; leave out that "
                "outlier set, or the normal classes that it holds"
            )


def _rest(source: Source, whole: Source) -> Source:
    """Return the classes of the whole set that are not normal, as an outlier set."""
    others = set(whole.test.classes) - set(source.train.classes)
    if not others:
        raise InputError(
            f"outliers: {REST!r} is empty, all classes of {whole.name} are normal; name some by normal_class"
        )
    return replace(whole.of_classes(others), name=REST)


def _load_textures(request: Request) -> DataSplit:
    if request.protocol != "one_class" or request.normal_class is not None:
        raise InputError("textures: a family is one class; write textures:FAMILY, without protocol or class")
    return texture_split(
        request.argument or "grid",
        resolution=request.resolution,
        channels=request.channels,
        seed=request.seed,
        limit=request.limit,
        options=_options(request),
    )


def _options(request: Request) -> dict[str, object]:
    return {**asdict(request), "outliers": list(request.outliers)}


def _textures(request: Request) -> Source:
    return texture_source(
        request.argument, resolution=request.resolution, channels=request.channels, seed=request.seed
    )


def _digits(request: Request) -> Source:
    return digits(resolution=request.resolution, channels=request.channels, seed=request.seed)


def _mvtec(request: Request) -> Source:
    return mvtec(request.argument, resolution=request.resolution, channels=request.channels)


def _folder(request: Request) -> Source:
    return folder(request.argument, resolution=request.resolution, channels=request.channels)


def _torchvision(request: Request) -> Source:
    return torchvision_set(
        request.kind,
        root=request.root,
        download=request.download,
        resolution=request.resolution,
        channels=request.channels,
    )


SOURCES: dict[str, Callable[[Request], Source]] = {
    "digits": _digits,
    "mvtec": _mvtec,
    "folder": _folder,
    **dict.fromkeys(SETS, _torchvision),
}
DATASETS: dict[str, Callable[[Request], DataSplit]] = {
    "textures": _load_textures,
    **dict.fromkeys(SOURCES, _load_source),
}
OUTLIERS: dict[str, Callable[[Request], Source]] = {"textures": _textures, **SOURCES}
TAKES_ARGUMENT = {"textures": "textures:FAMILY", "mvtec": "mvtec:FOLDER", "folder": "folder:FOLDER"}
