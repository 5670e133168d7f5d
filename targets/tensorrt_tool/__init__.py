"""NVIDIA's trtexec: what it wants to hear in each version, and what it says."""
