"""Everything that was measured, and its renderings. JSON is the truth; the others show it."""
