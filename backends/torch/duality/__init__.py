"""Mamba-2's dual form."""
