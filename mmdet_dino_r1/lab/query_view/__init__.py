"""What the queries of a model look at, image by image."""
