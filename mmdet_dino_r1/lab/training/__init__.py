"""What a training logged, and its curves."""
