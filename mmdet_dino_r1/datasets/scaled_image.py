"""A loader for images of more than eight bits a value."""

import cv2
import numpy as np
from mmcv.image.io import imread_flags
from mmcv.transforms import LoadImageFromFile
from mmdet.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadScaledImage(LoadImageFromFile):
    """``LoadImageFromFile`` for 16-bit, 32-bit and floating-point images, by OpenCV.

    ``low`` becomes 0 and ``high`` 255; what lies beyond is cut off. mmcv keeps the upper eight of
    16 bits, so that a camera's 12 bits become 0 to 15, and reads no grey TIFF of 32 bits. Images of
    eight bits a value pass unscaled. Grey ones get three equal channels.

    Args:
        low, high: values in the file.
        to_float32: give float32, with the fractions; otherwise uint8, rounded.
        color_type: 'color' or 'color_ignore_orientation'.
        **kwargs: as for ``LoadImageFromFile``.

    Raises:
        ValueError: ``high`` is not above ``low``.
    """

    def __init__(
        self,
        low: float,
        high: float,
        to_float32: bool = False,
        color_type: str = 'color',
        **kwargs,
    ) -> None:
        if not high > low:
            raise ValueError(f'high must be above low, got low={low}, high={high}.')
        as_stored = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR
        turning = imread_flags[color_type] & cv2.IMREAD_IGNORE_ORIENTATION
        super().__init__(color_type=as_stored | turning, **kwargs)
        self.low, self.high, self.dtype = low, high, np.float32 if to_float32 else np.uint8

    def transform(self, results: dict) -> dict | None:
        """Read ``img_path``; ``img`` is (h, w, 3) in BGR order."""
        if (results := super().transform(results)) is None:  # by ignore_empty
            return None
        image = results['img']
        if image.dtype != np.uint8:
            image = (image.astype(np.float32) - self.low) * (255 / (self.high - self.low))
            image = np.nan_to_num(image.clip(0, 255))  # NaN, which stands for no data, as 0
            image = image if self.dtype == np.float32 else image.round()
        if image.ndim == 2:
            image = np.repeat(image[..., None], 3, 2)
        results['img'] = np.ascontiguousarray(image, self.dtype)
        return results
