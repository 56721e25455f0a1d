"""Shipped configs, and what a config says of its tests and prompts."""
