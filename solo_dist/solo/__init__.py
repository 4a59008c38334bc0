"""The mathematics of SOLOv2: network, heads, dynamic convolution, targets, losses, post-processing."""
