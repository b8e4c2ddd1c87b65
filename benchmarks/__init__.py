"""Benchmarks against hand-written loops: `python -m benchmarks --help` from the repository root."""
