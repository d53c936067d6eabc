"""COBRA: adversarial contrastive training against pseudo-anomalies crafted from the normal images themselves."""

from diffad.cobra.detector import Cobra
from diffad.cobra.network import CobraNetwork, Heads

__all__ = ["Cobra", "CobraNetwork", "Heads"]
