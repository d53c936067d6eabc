"""Industrial sets in the layout of MVTec AD: one category, good images to learn from, defects with masks."""

from __future__ import annotations

from pathlib import Path

from certify.checks import InputError
from diffad.data.defects import INDUSTRIAL
from diffad.data.folder import class_folders, data_folder, file_pools
from diffad.data.probe import NEAR
from diffad.data.reading import list_images
from diffad.data.records import GOOD
from diffad.data.source import Source

LAYOUT = (
    "train/good/, test/good/, test/<defect>/ and ground_truth/<defect>/<name>_mask.png, as one category of "
    "MVTec AD (https://www.mvtec.com/company/research/datasets/mvtec-ad)"
)
DEFAULT_RESOLUTION = 64


def mvtec(path: str, *, resolution: int | None = None, channels: int | None = None) -> Source:
    """Return one category of an MVTec AD style set, resized to 64 x 64 unless told (papers use 256).

    64 is what a CPU can train and certify in reasonable time; radii at different resolutions are not
    comparable. Where `ground_truth/` exists every defective image needs a mask; without it there are no
    masks. An optional `groups.json` names images that must stay together.
    """
    root = data_folder(path, LAYOUT)
    for part in ("train", "test"):
        if not (root / part / GOOD).is_dir():
            raise InputError(f"{root / part / GOOD}: no such folder; need {LAYOUT}")
    train = dict.fromkeys(list_images(root / "train" / GOOD), GOOD)
    test = class_folders(root / "test", LAYOUT)
    pools = file_pools(
        root,
        (train, test),
        resolution=resolution or DEFAULT_RESOLUTION,
        channels=channels,
        masks=_mask_files(root, test),
    )
    return Source(f"mvtec:{root.resolve().name}", *pools, INDUSTRIAL, group_above=NEAR)


def _mask_files(root: Path, test: dict[Path, str]) -> dict[Path, Path]:
    truth = root / "ground_truth"
    if not truth.is_dir():
        return {}
    masks = {}
    for file, defect in test.items():
        if defect == GOOD:
            continue
        # the published layout adds _mask; some conversions keep the image's own name
        candidates = [truth / defect / f"{file.stem}{end}.png" for end in ("_mask", "")]
        found = next((mask for mask in candidates if mask.is_file()), None)
        if found is None:
            raise InputError(f"{candidates[0]}: no such file; every defective image needs its mask")
        masks[file] = found
    return masks
