"""The network: backbones, feature pyramid, heads, dynamic convolution. NHWC throughout; knows nothing of devices."""

from solo_dist.models.solov2 import SOLOv2, build_model

__all__ = ["SOLOv2", "build_model"]
