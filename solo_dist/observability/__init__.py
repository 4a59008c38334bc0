"""Metric writers, the progress line and pictures."""
