"""From a dataset's name to a scored run directory."""
