"""The run directory: every file name and format."""
