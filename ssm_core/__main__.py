"""`python -m ssm_core`: print the backends."""

from . import show_backends

show_backends()
