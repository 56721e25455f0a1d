"""Class names in any script on the pictures of validations and tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mmdet.registry import VISUALIZERS
from mmdet.visualization import DetLocalVisualizer
from mmengine.structures import InstanceData

from ..utils.fonts import legible


@VISUALIZERS.register_module()
class LegibleVisualizer(DetLocalVisualizer):
    """mmdet's, with class names in a font that has their letters, or as ``class 3``.

    Arguments are those of ``DetLocalVisualizer``.
    """

    def _draw_instances(
        self,
        image: np.ndarray,
        instances: InstanceData,
        classes: Sequence[str] | None,
        palette: Sequence[tuple] | None,
    ) -> np.ndarray:
        classes = None if classes is None else legible(classes)
        return super()._draw_instances(image, instances, classes, palette)
