"""Tests of the exchange with other code: a package, so that its conftest.py stands beside the one above."""
