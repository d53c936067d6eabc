"""ATD: a discriminator of robust features, trained against an attacker with an open set and a feature generator."""

from diffad.atd.detector import Atd
from diffad.atd.feature_players import FeatureDiscriminator, FeatureGenerator
from diffad.atd.pixel_players import PixelDiscriminator, PixelGenerator

__all__ = ["Atd", "FeatureDiscriminator", "FeatureGenerator", "PixelDiscriminator", "PixelGenerator"]
