"""What a run has learned, for people: errors by kind, curves, confusions and galleries on one page, and in files."""
