"""What lies between the trainer and the machines: clusters, strategies, precision, signals, watchdog and lock."""
