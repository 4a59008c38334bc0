"""Clusters, strategies, collectives, stop signals, the watchdog, exit codes and precision."""
