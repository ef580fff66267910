"""What every recurrence over time shares: where sequences begin and end, the linear scan, chunks, summaries."""
