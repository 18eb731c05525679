"""Pre-training of a meta generator: tasks, the directory, validation."""
