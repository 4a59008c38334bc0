"""The parts of `solo-dist benchmark`: each module has `run(options) -> {name: number}` and prints what it measures."""
