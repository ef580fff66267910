"""What the library does on a GPU, in one run of a given time: `python -m benchmarks.gpu`, or `nox -s gpu`."""
