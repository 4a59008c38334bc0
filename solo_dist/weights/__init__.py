"""Weights of other programs: names, files, PyTorch's format, and how they get into our network."""
