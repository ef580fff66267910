"""Layers around a recurrence whose gates depend on the input, one a file."""
