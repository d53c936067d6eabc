"""The optimisers that a training chooses from: AdamW, and LARS for contrastive losses and large batches.

LARS (You et al. 2017) scales the step of each weight tensor to trust * |w| / (|g| + decay |w|), so a learning rate
means a relative change. Biases and the scales and shifts of batch norm, which have one axis or none, are left out of
both weight decay and this scaling and follow plain SGD with momentum, as in SimCLR (Chen et al. 2020, appendix B.9).
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

import torch
from torch import nn

from certify.checks import InputError
from diffad.training.options import TrainingOptions


def make_optimizer(module: nn.Module, options: TrainingOptions) -> torch.optim.Optimizer:
    """Return the optimiser that the options name, over the parameters that are trained.

    Raises:
        InputError: LARS without timm, which has it; nothing replaces it silently.
    """
    if options.optimizer == "lars":
        return _lars(module, options)
    return torch.optim.AdamW(
        module.parameters(),
        lr=options.learning_rate,
        betas=(options.adam_beta1, options.adam_beta2),
        weight_decay=options.adam_weight_decay,
        eps=options.adam_epsilon,
        fused=True,
    )


def check_optimizer(options: TrainingOptions) -> None:
    """Refuse an optimiser whose package is missing, before anything else is done."""
    if options.optimizer == "lars" and importlib.util.find_spec("timm") is None:
        raise InputError("optimizer lars: timm is not installed; pip install 'diffad[timm]'")


def _lars(module: nn.Module, options: TrainingOptions) -> torch.optim.Optimizer:
    check_optimizer(options)
    lars: type[torch.optim.Optimizer] = importlib.import_module("timm.optim").Lars
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {
            "params": [parameter for parameter in trained if parameter.ndim > 1],
            "weight_decay": options.lars_weight_decay,
            "always_adapt": True,  # also where the decay is 0
        },
        {
            "params": [parameter for parameter in trained if parameter.ndim <= 1],
            "weight_decay": 0.0,
            "always_adapt": False,  # no decay and no scaling: timm scales a group that has either
        },
    ]
    keywords: dict[str, Any] = {
        "lr": options.learning_rate,
        "momentum": options.lars_momentum,
        "trust_coeff": options.lars_trust_coefficient,
    }
    return lars([group for group in groups if group["params"]], **keywords)
