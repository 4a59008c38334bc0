"""The training run: the loop, what it is built of, the compiled step, the optimizer, and validation in between."""
