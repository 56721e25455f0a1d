"""How fast training and inference are, and how they grow: what `tools/benchmark.py` measures."""
