"""How long an inference would take on a board that nobody could measure on: an interval, and never a measurement."""
