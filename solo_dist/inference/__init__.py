"""From a checkpoint to detections: files in, overlays and COCO results out; metrics; the exported model."""
