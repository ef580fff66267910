"""The selective scan."""
