"""ZARND: nearest neighbours on features of an adversarially robust backbone, with no training of its own."""

from diffad.zarnd.detector import Zarnd

__all__ = ["Zarnd"]
