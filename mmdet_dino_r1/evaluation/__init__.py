"""Metrics that mmdet lacks; none are needed so far."""
