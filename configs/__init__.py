"""Recipes, one a file: each has a `get_config()` and a docstring with its source, commands and expected mask AP."""
