"""The training run: the loop, the compiled step, the optimizer, validation on the way."""
