"""From COCO json and images to TFRecord shards with precomputed targets."""
