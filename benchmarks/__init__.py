"""Speed and memory, as ratios to a bare version of the same work in the same run: ``python -m benchmarks``."""
