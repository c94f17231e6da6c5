"""Checks, statistics and warnings before a training."""
