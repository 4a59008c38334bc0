"""Files at paths and URLs: reading, writing in one piece, errors of stores, locks of one machine."""
