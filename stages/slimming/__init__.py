"""Pruning to a budget: which channels go so that what is measured meets the target at the least cost in accuracy."""
