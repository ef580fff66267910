"""What the documentation is built with beside Sphinx: docstrings, formulas, the reference, generated tables."""
