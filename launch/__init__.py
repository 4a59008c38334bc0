"""Ways to start a training on one machine or many; see launch/README.md."""
