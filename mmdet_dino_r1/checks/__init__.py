"""What is looked at before, around and after a run: configs, paths, data, checkpoints, failures."""
