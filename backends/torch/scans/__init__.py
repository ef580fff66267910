"""Linear scans."""
