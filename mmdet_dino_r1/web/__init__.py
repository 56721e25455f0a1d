"""Servers: the page (``server.py``) and Label Studio's backend (``label_studio.py``) need Flask."""
