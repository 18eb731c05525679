"""Scores of synthetic sets by fresh networks."""
