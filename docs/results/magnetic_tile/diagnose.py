"""What stands in the way: AUROC by size of the defect, and how scores follow the exposure of a tile.

    python docs/results/magnetic_tile/diagnose.py docs/results/magnetic_tile/32 mvtec:data/magnetic_tile

Reads the recorded clean scores of the diffusion detector and the masks of the test images; nothing is chosen by it.
With a third word, FILE.json, writes what it prints there too.
"""

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from certify import ScoreBounds, auroc
from certify.files import write_json
from diffad.data import load_data
from diffad.manifest import describe_data, git_state, versions

AREAS = (0.0, 0.001, 0.003, 0.02, 1.0)
PIXELS = 128  # resolution at which defects and tiles are measured


def main(folder: str, spec: str, output: str | None = None) -> None:
    """Print the tables."""
    rows = pd.read_parquet(Path(folder) / "images.parquet")
    rows = rows[(rows.condition == "clean") & (rows.detector == "diffusion")].sort_values("image_index")
    split = load_data(spec, resolution=PIXELS)
    test = split.test
    assert tuple(rows.image_id) == test.identifiers
    assert test.masks is not None
    scores, labels, defects = rows.lower.to_numpy(), test.labels.numpy(), np.array(test.defects)
    share = test.masks.flatten(1).double().mean(1).numpy()

    def area_of(values: np.ndarray, chosen: np.ndarray) -> float:
        keep = (labels == 0) | chosen
        return float(auroc(ScoreBounds.exact(values[keep]), labels[keep], "clean"))

    sizes, kinds, exposure = [], {}, {}
    for low, high in pairwise(AREAS):
        chosen = (labels == 1) & (share >= low) & (share < high)
        sizes.append({"from": low, "to": high, "images": int(chosen.sum()), "auroc": area_of(scores, chosen)})
        print(
            f"defect area {low:.1%} to {high:.1%}: {chosen.sum():3d} images, AUROC {sizes[-1]['auroc']:.3f}"
        )
    for kind in sorted(set(defects[labels == 1])):
        kinds[kind] = float(np.median(share[defects == kind]))
        print(f"{kind}: median share of the image {kinds[kind]:.2%}")
    pixels = test.images[:, 0]
    measures = {
        "brightness": pixels.mean((1, 2)),
        "roughness": (pixels[:, 1:, 1:] - pixels[:, :-1, :-1]).abs().mean((1, 2)),
    }
    for name, measure in measures.items():
        values = measure.double().numpy()
        rank = float(spearmanr(values[labels == 0], scores[labels == 0]).statistic)
        exposure[name] = {"rank_correlation": rank, "auroc_divided": area_of(scores / values, labels == 1)}
        print(
            f"{name}: rank correlation with the score of normals {rank:.2f}; "
            f"AUROC of score / {name} {exposure[name]['auroc_divided']:.3f}"
        )
    if output:
        facts = {"data": describe_data(split), "git": git_state(), "versions": versions()}
        write_json(Path(output), {**facts, "sizes": sizes, "median_share": kinds, "exposure": exposure})


if __name__ == "__main__":
    main(*sys.argv[1:])
