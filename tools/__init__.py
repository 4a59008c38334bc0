"""Commands of solo-dist by the names they have in a checkout: python -m tools.NAME."""
