"""Class names in any script on the pictures of validations and tests."""

from __future__ import annotations

from mmdet.registry import VISUALIZERS
from mmdet.visualization import DetLocalVisualizer

from ..utils.fonts import legible


@VISUALIZERS.register_module()
class LegibleVisualizer(DetLocalVisualizer):
    """mmdet's, with class names in a font that has their letters, or as ``class 3``.

    Arguments are those of ``DetLocalVisualizer``.
    """

    @DetLocalVisualizer.dataset_meta.setter
    def dataset_meta(self, meta: dict | list) -> None:
        """What names and colours are taken from; a list, of several training sets, as it is."""
        if isinstance(meta, dict) and (classes := meta.get('classes')):
            meta = meta | dict(classes=legible(classes))
        DetLocalVisualizer.dataset_meta.fset(self, meta)
