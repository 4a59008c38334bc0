"""What is done about the versions of TensorFlow, on whichever of them is installed."""

import os
import subprocess
import sys

_IMPORTS = """
import sys
import solo_dist
import tensorflow, keras
assert "matplotlib" not in sys.modules
import matplotlib.pyplot
"""


def test_tensorflow_is_imported_without_noise_and_matplotlib():
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-c", _IMPORTS], env=environment, capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
