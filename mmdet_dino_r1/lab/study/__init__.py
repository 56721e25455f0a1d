"""Studies: a grid of configs and seeds, trained, evaluated and compared."""
