"""The package's version, the only place that states it (setup.py reads this file as text)."""

__version__ = '0.7.0'
