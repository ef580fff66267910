"""Side-by-side measurements: `python -m benchmarks`, or `nox -s bench`."""
