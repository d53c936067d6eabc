"""Train a small classifier as one of several processes and write down what came back: `FOLDER`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from diffad.cobra.classifier import ClassifierConfig, train_classifier
from diffad.cobra.filter import fit_filter


def main(folder: Path) -> None:
    images = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    options = {"width": 4, "blocks": (1,), "train_batch_size": 8, "max_train_steps": 3, "lr_warmup_steps": 1}
    config = ClassifierConfig(output_dir=str(folder / "classifier"), **options)
    classifier = train_classifier(images[:30], config, held_out=images[30:])
    fitted = fit_filter(images[:30], classifier, held_out=images[30:])
    lines = f"{classifier.fingerprint()}\n{fitted.fingerprint()}\n"
    (folder / f"rank-{os.environ['RANK']}.txt").write_text(lines, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
