"""What the user asks for: command line, recipes, the run loop, the store and the report."""
