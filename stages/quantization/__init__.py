"""Quantise a network for the grid of one runtime: calibrate, train with the rounding in place, export."""
