"""A run directory: checkpoints, where a run starts, metric files, upload, lock, progress."""
