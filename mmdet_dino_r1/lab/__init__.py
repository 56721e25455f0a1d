"""The laboratory: what measures the method or looks into it."""
