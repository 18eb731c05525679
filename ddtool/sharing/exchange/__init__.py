"""Sets of others read here, and sets of ours written for others."""
