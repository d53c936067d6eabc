"""Networks that turn images into features: published robust ones, and ones trained here."""

from diffad.backbones.backbone import Backbone, load_backbone, save
from diffad.backbones.network import Network
from diffad.backbones.resnet import ResNet

__all__ = ["Backbone", "Network", "ResNet", "load_backbone", "save"]
