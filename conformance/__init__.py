"""The cross-backend suite: `python -m pytest conformance`, for every array library that is here or for one of yours."""
