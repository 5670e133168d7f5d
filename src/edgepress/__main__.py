"""`python -m edgepress` is the command line."""

from .pipeline.cli import entry

entry()
