"""The parts of tools/benchmark.py: each module has `run(options) -> {name: number}` and prints what it measures."""
