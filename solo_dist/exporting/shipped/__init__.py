"""Files that are copied beside each exported model and run there without solo_dist."""
