"""The network: backbones, feature pyramid, heads, dynamic convolution. NHWC throughout; knows nothing of devices."""
