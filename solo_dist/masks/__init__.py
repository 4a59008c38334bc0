"""Instance masks: run lengths, bits, pasting."""
