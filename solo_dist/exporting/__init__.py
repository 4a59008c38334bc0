"""Trained models as files that other programs run: formats, what travels with them, and the check of each."""
