"""The web page: boxes drawn on pictures, detections in others. ``server.py`` alone needs Flask."""
