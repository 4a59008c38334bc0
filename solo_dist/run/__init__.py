"""A run directory: paths, checkpoints, resuming, metric files, uploads, lock, progress."""
