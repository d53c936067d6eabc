"""What the presets run: problems, the detector with one thing changed, certificates, and how much of each."""

from __future__ import annotations

from dataclasses import dataclass

EXPERIMENTS = ("detectors", "ablations", "eot", "certified", "same_score")
BASELINES = ("pixel_nn", "patch_nn", "pca", "autoencoder")

Flags = dict[str, tuple[str, ...]]
# Diffusion steps k of the schedule (linear, 1000 steps) and their noise in [0, 1] pixel units, half of
# sqrt((1 - abar_k) / abar_k): a test holds them against the schedule.
TIMESTEPS = {50: "0.0864", 100: "0.1694", 150: "0.2591", 200: "0.3596", 300: "0.6170", 400: "1.0154"}
STEP = 150  # of the base detector, as are the others below: chosen before any run
BASE = ("--sigma", TIMESTEPS[STEP], "--score", "paper")
# Each table of the ablation: the detector as published, but for these options of `measures variant`.
ABLATIONS: dict[str, Flags] = {
    "timestep": {f"k-{step}": ("--sigma", sigma) for step, sigma in TIMESTEPS.items() if step != STEP},
    "shots": {"shots-2": ("--shots", "2"), "shots-4": ("--shots", "4")},
    "scales": {
        "scales-1": ("--scales", "1"),
        "scales-1-2": ("--scales", "1", "2"),
        "scales-1-2-4": ("--scales", "1", "2", "4"),
    },
    "score": {
        "root_max": ("--score", "root_max"),
        "l2": ("--score", "l2"),
        "patch_max": ("--score", "patch_max"),
    },
    "train_mean": {
        "no_mean": ("--no_train_mean",),
        "root_max-no_mean": ("--score", "root_max", "--no_train_mean"),
    },
}
ABLATIONS = {
    table: {name: (*BASE, *flags) for name, flags in variants.items()}
    for table, variants in ABLATIONS.items()
}
BASE_NAME = "paper"  # the row that every ablation is compared with
# What the base row is called in the table of each ablation.
BASE_ROW = {
    "timestep": f"k-{STEP}",
    "shots": "shots-1",
    "scales": "scales-1-2-4-8",
    "score": "paper (a square)",
    "train_mean": "train mean",
}
VARIANTS = {name: flags for variants in ABLATIONS.values() for name, flags in variants.items()}
COMPARED = (BASE_NAME, "l2")  # beside the baselines under the ensemble
KNOWN = "known"  # the stored draws, which the attacker has
EOT = ("1", "4", "16")  # draws a gradient step of the attack on fresh noise
# Ways, scores and noise of the certificates; the two ways that smooth the whole detector have its own noise inside.
CERTIFIED: Flags = {
    "reference-root_max-0.5": ("--smoothing", "reference", "--sigma", "0.5", "--score", "root_max"),
    "reference-l2-0.25": ("--smoothing", "reference", "--sigma", "0.25", "--score", "l2"),
    "reference-l2-0.5": ("--smoothing", "reference", "--sigma", "0.5", "--score", "l2"),
    "reference-l2-1": ("--smoothing", "reference", "--sigma", "1", "--score", "l2"),
    "reference-patch_max-0.5": ("--smoothing", "reference", "--sigma", "0.5", "--score", "patch_max"),
    "input-l2-0.25": ("--smoothing", "input", "--sigma", "0.25", "--inner_sigma", "0.5", "--score", "l2"),
    "denoise-l2-0.25": ("--smoothing", "denoise", "--sigma", "0.25", "--inner_sigma", "0.5", "--score", "l2"),
    "input-paper-0.25": (
        "--smoothing",
        "input",
        "--sigma",
        "0.25",
        "--inner_sigma",
        "0.5",
        "--score",
        "paper",
    ),
}
MAIN_CERTIFICATE = (
    "reference-l2-1"  # has the network-free rows, other numbers of draws and the attack beside it
)
RADII = ("0", "0.05", "0.1", "0.2", "0.25", "0.5")
SAME_SCORE_RADII = ("0.1", "0.2")


@dataclass(frozen=True)
class Problem:
    """A one-class problem: options of its images, of the training of its network, and the radii of the attacks.

    `{cifar10}`, `{mnist}`, `{tile}` in `data` stand for what the command line says.
    """

    data: tuple[str, ...]
    network: tuple[str, ...]
    linf: str = "8/255"
    l2: str = "0.2"  # published, at 256 x 256


@dataclass(frozen=True)
class Preset:
    """How much: problems, seeds, test images of each label, attack steps, draws of a certificate and other numbers.

    `checks` go with every attack but those that are compared as attacks.
    `flags` go to every training.
    """

    problems: dict[str, Problem]
    seeds: tuple[int, ...]
    limit: int
    steps: int
    n: int
    others: tuple[int, ...]
    draws: int
    checks: str = "mandatory"
    flags: tuple[str, ...] = ()


SMALL = ("--space_to_depth", "2", "--block_out_channels", "32", "64", "--prediction_type", "v_prediction")
SMALL = (
    *SMALL,
    "--min_sigma",
    "0.08",
    "--max_sigma",
    "2.0",
    "--learning_rate",
    "2e-3",
    "--ema_max_decay",
    "0.999",
)
SMALL = (*SMALL, "--lr_warmup_steps", "50", "--train_batch_size", "64", "--checkpointing_steps", "200")
CHOICE = ("--select_sigmas", "0.5", "--select_scores", "l2", "--select_images", "20", "--select_draws", "50")
DIGITS = Problem(("--data", "digits", "--normal_class", "8"), (*SMALL, *CHOICE, "--max_train_steps", "700"))

LARGE = (
    "--prediction_type",
    "v_prediction",
    "--min_sigma",
    "0.08",
    "--max_sigma",
    "2.0",
    "--learning_rate",
    "2e-4",
)
LARGE = (
    *LARGE,
    "--ema_max_decay",
    "0.9999",
    "--lr_warmup_steps",
    "500",
    "--train_batch_size",
    "128",
    *CHOICE,
)
LARGE = (*LARGE, "--checkpointing_steps", "2000", "--max_train_steps", "20000", "--layers_per_block", "2")
CIFAR10 = (*LARGE, "--block_out_channels", "128", "256", "256", "--attention_levels", "1", "--random_flip")
PUBLISHED = {
    "cifar10": Problem(("--data", "{cifar10}", "--normal_class", "automobile"), CIFAR10, linf="2/255"),
    "mnist": Problem(
        ("--data", "{mnist}", "--normal_class", "8"),
        (*LARGE, "--space_to_depth", "2", "--block_out_channels", "128", "256"),
        linf="8/255",
    ),
    "magnetic_tile": Problem(
        ("--data", "{tile}", "--resolution", "64"),
        (*LARGE, "--space_to_depth", "4", "--block_out_channels", "128", "256", "256"),
        linf="2/255",
    ),
}
SMOKE_FLAGS = (
    "--max_train_steps",
    "6",
    "--checkpointing_steps",
    "6",
    "--lr_warmup_steps",
    "1",
    "--select_images",
    "4",
)
PRESETS = {
    "smoke": Preset({"digits": DIGITS}, (0,), 3, 2, 100, (50,), 2, checks="none", flags=SMOKE_FLAGS),
    "cpu": Preset({"digits": DIGITS}, (0,), 25, 20, 500, (100, 2000), 4),
    "paper": Preset(PUBLISHED, (0,), 100, 100, 1000, (100, 10000), 8),
}
