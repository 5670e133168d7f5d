"""Distillation: the nouns of the training core, losses by family, sources, and the stage."""
