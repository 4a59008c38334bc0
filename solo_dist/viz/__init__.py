"""Drawing: masks and labels over images."""
