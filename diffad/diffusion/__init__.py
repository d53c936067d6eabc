"""Diffusion reconstruction: one model is scorer and purifier at once."""
