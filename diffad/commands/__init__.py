"""The commands of `diffad`, one module each."""
