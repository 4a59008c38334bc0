"""solo_dist: SOLOv2 instance segmentation in TensorFlow 2, from one small GPU or a CPU up to many machines.

Importing this package is cheap and does not import TensorFlow.
"""

from solo_dist import stack

__version__ = "0.1.0"

stack.ease_imports()
