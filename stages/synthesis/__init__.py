"""Images that are made from a network, where there are no data."""
