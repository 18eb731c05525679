"""Tests of comparisons: a package, so that its conftest.py stands beside the one above."""
