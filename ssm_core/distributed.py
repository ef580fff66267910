"""One sequence over many processes: `sequence`, and what it asks of them."""

from .recurrences.shards import Shards, sequence

__all__ = ["Shards", "sequence"]
