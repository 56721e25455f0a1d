"""What mmdet's metrics lack."""

from .chance_level import chance_ap50

__all__ = ['chance_ap50']
