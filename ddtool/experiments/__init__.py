"""Comparisons of methods under one budget: the grid of jobs, the folder, the workers, tables and plots."""
