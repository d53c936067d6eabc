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
from diffad.data.digits import digits
from diffad.data.folder import folder
from diffad.data.mvtec import mvtec
from diffad.data.protocols import PROTOCOLS, one_class, ood, resolve_class, unlabeled_multiclass
from diffad.data.records import GOOD
from diffad.data.source import Source
from diffad.data.split import DataSplit
from diffad.data.texture_split import texture_split
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
        check_choice(self.kind, tuple(DATASETS), "data set")
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
        normal_class: the class that is normal under `one_class`; not needed where there is only one.
        resolution: side in pixels of the square the images are resized to; default: digits 16, textures 32,
            mvtec 64, others as the files are.
        channels: 1 or 3; default as the files are, all colour where one is.
        seed: cuts the parts, draws the limited test and the synthetic defects.
        limit: test images a side (normals, anomalies); default all (digits: as many anomalies as normals).
        protocol: "one_class", "unlabeled_multiclass" or "ood" (see `diffad.data.protocols`).
        outliers: specs of the data sets that are anomalous under the last two.
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
    return DATASETS[request.kind](request)


def _load_source(request: Request) -> DataSplit:
    source = SOURCES[request.kind](request)
    if request.group_above is not None:
        source = replace(source, group_above=request.group_above)
    if request.protocol == "one_class":
        choice = one_class(source, request.normal_class, limit=request.limit, seed=request.seed)
        normal = resolve_class(source, request.normal_class)
        name = source.name if normal == GOOD else f"{source.name}:{normal}"
    else:
        others = _outliers(request, source)
        protocol = {"unlabeled_multiclass": unlabeled_multiclass, "ood": ood}[request.protocol]
        choice = protocol(source, others, limit=request.limit, seed=request.seed)
        name = f"{source.name}-vs-{'+'.join(other.name for other in others)}"
    return assemble(
        name, source, choice, seed=request.seed, channels=request.channels, options=_options(request)
    )


def _outliers(request: Request, source: Source) -> list[Source]:
    """Return the outlier sets at the size and depth of the normal one, by the same resampler."""
    if request.normal_class is not None:
        raise InputError(f"normal_class: protocol {request.protocol} takes none, all classes are normal")
    depth, side, _ = source.train.read(0)[0].shape
    result = []
    for spec in request.outliers:
        other = replace(
            request, spec=spec, resolution=request.resolution or side, channels=request.channels or depth
        )
        check_choice(other.kind, tuple(SOURCES), "outliers")
        result.append(SOURCES[other.kind](other))
    return result


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
TAKES_ARGUMENT = ("textures", "mvtec", "folder")
