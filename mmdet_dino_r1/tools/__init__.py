"""Scripts for ``mim train|test|run mmdet_dino_r1``; each also runs by its path."""
