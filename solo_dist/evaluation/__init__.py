"""COCO mask metrics on the original sizes of the pictures."""
