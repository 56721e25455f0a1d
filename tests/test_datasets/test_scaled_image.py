"""Images of more than eight bits a value, scaled to 0 … 255."""

import cv2
import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile
from mmdet.registry import TRANSFORMS
from PIL import ExifTags, Image


def read(path, **more):
    step = dict(type='LoadScaledImage', low=0, high=4095) | more
    return TRANSFORMS.build(step)(dict(img_path=str(path)))


@pytest.mark.parametrize('suffix', ['png', 'tif'])
def test_values_by_hand(tmp_path, suffix):
    path = tmp_path / f'a.{suffix}'
    cv2.imwrite(str(path), np.array([[0, 819, 4095], [1000, 3000, 60000]], np.uint16))
    found = read(path)
    assert found['img'].dtype == np.uint8
    assert found['img'].tolist() == [
        [[v] * 3 for v in row] for row in ([0, 51, 255], [62, 187, 255])
    ]
    assert found['img_shape'] == found['ori_shape'] == (2, 3)
    window = read(path, low=1000, high=3000, to_float32=True)['img']
    assert window.dtype == np.float32
    assert window[..., 0].tolist() == [[0, 0, 255], [0, 255, 255]]


def test_floats_with_gaps_and_negative_values(tmp_path):
    path = tmp_path / 'a.tif'
    cv2.imwrite(str(path), np.array([[-1, 0, np.nan, 1, 9]], np.float32))
    assert read(path, low=-1, high=1)['img'][0, :, 0].tolist() == [0, 128, 0, 255, 255]


def test_eight_bits_are_as_loaded_without(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    image.save(tmp_path / 'turned.jpg', exif=exif)
    for mode, name in (('RGB', 'rgb.png'), ('L', 'grey.png'), ('P', 'palette.png')):
        image.convert(mode).save(tmp_path / name)
    image.convert('RGBA').save(tmp_path / 'rgba.png')
    for path in tmp_path.iterdir():
        plain = LoadImageFromFile()(dict(img_path=str(path)))['img']
        np.testing.assert_array_equal(read(path)['img'], plain)
    unturned = read(tmp_path / 'turned.jpg', color_type='color_ignore_orientation')
    assert unturned['img_shape'] == (30, 40)


def test_what_cannot_be(tmp_path):
    with pytest.raises(ValueError, match='high must be above low'):
        read('a.png', low=3, high=3)
    (tmp_path / 'a.png').write_bytes(b'no image')
    with pytest.raises(AssertionError, match='failed to load image'):
        read(tmp_path / 'a.png')
    assert read(tmp_path / 'gone.png', ignore_empty=True) is None
