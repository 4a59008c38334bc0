"""What networks are made of: backbones, feature pyramid, layers. NHWC throughout; knows nothing of devices."""
