"""Image files as the loader of the pipeline reads them, before training and with --images."""

import re

import cv2
import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile
from PIL import ExifTags, Image

from mmdet_dino_r1.checks import image_check
from mmdet_dino_r1.checks.annotation_table import AnnotationTable
from mmdet_dino_r1.checks.image_check import check_images
from mmdet_dino_r1.datasets import LoadScaledImage

OPENCV = tuple(map(int, cv2.__version__.split('.')[:2]))
BOTH = pytest.mark.parametrize('each', [False, True])
NOISE = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
TIFF = 'http://ns.adobe.com/tiff/1.0/'
RDF = 'http://www.w3.org/1999/02/22-rdf-syntax-ns#'
SCALED = dict(type='LoadScaledImage', low=0, high=4095)


def table(*names, width=40, height=30):
    images = [dict(id=i, file_name=n, width=width, height=height) for i, n in enumerate(names)]
    coco = dict(images=images, annotations=[], categories=[dict(id=7, name='zebra')])
    return AnnotationTable(coco, 'f.json')


def found(problems):
    """(level, kind): count and examples of each problem."""
    return {(p.level, p.kind): (p.count, p.examples) for p in problems}


def loads(path):
    try:
        return LoadImageFromFile()(dict(img_path=str(path)))['img'].shape[1::-1]
    except Exception:
        return None


@pytest.fixture
def folder(tmp_path):
    for name in ('a.png', 'b.png'):
        cv2.imwrite(str(tmp_path / name), NOISE)
    return tmp_path


@pytest.mark.parametrize(
    ('file', 'there'),
    [
        ('.\\a.png', 'a.png'),  # Windows
        ('images/a.png', 'a.png'),  # its folder is in data_prefix, too
        ('../../upload/1/a.png', 'a.png'),  # Label Studio
        ('/data/upload/1/a.png', 'a.png'),
        ('a', 'a.png'),
        ('a.JPG', 'a.png'),
        ('in%20it/c%5F1.png', 'in it/c_1.png'),
        ('other.png', None),
    ],
)
def test_what_is_there_instead_of_a_missing_file(folder, file, there):
    (folder / 'in it').mkdir()
    cv2.imwrite(str(folder / 'in it' / 'c_1.png'), NOISE)
    (problem,) = check_images(table(file), str(folder))
    assert problem.kind == 'image_missing'
    said = f' There is {there} in {folder}.' if there else ''
    assert problem.remedy.endswith(f'correct what is wrong.{said}')


@BOTH
def test_all_there(folder, each):
    assert check_images(table('a.png', 'b.png'), str(folder), each=each) == []


@BOTH
def test_missing(folder, each):
    (problem,) = check_images(table('a.png', 'c.png'), str(folder), each=each)
    assert problem.what == '1 image file of 2 missing'
    assert problem.examples == (f'{folder}/c.png',)


def test_so_many_are_looked_for_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(image_check, 'MOST_FILES', 20)
    names = [f'{i}.png' for i in range(100)]
    assert check_images(table(*names), str(tmp_path))[0].count == 20
    assert check_images(table(*names), str(tmp_path), each=True)[0].count == 100
    monkeypatch.setattr(image_check, 'SECONDS', 0)
    assert check_images(table(*names), str(tmp_path))[0].count == 1


@BOTH
def test_broken_and_of_another_size(folder, each):
    (folder / 'a.png').write_bytes(b'no image')
    cv2.imwrite(str(folder / 'b.png'), np.zeros((40, 30, 3), np.uint8))
    assert found(check_images(table('a.png', 'b.png'), str(folder), each=each)) == {
        ('error', 'image_broken'): (1, (f'{folder}/a.png',)),
        ('error', 'image_size_differs'): (1, (f'{folder}/b.png: 30x40, not 40x30',)),
    }


@pytest.mark.parametrize('name', ['a.jpg', 'a.png'])
def test_an_image_cut_off_in_the_middle(tmp_path, name):
    """Its size can be read all the same."""
    pixels = np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8)
    cv2.imwrite(str(tmp_path / name), pixels)
    whole = table(name, width=400, height=300)
    assert check_images(whole, str(tmp_path), each=True) == []
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    is_read = loads(tmp_path / name) is not None
    assert not is_read or name == 'a.jpg' and OPENCV < (4, 11), 'which left the rest grey'
    broken = {('error', 'image_broken'): (1, (f'{tmp_path}/{name}',))}
    assert found(check_images(whole, str(tmp_path), each=True)) == ({} if is_read else broken)


def photograph(path, orientation=6, size=(40, 30)):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(NOISE).resize(size).save(path, exif=exif)


@BOTH
@pytest.mark.parametrize('suffix', ['jpg', 'png', 'webp', 'tif', 'avif'])
def test_photographs_turned_by_exif(tmp_path, suffix, each):
    """Whatever the decoder does: what is annotated as loaded is right, the other way an error."""
    if suffix == 'avif' and OPENCV < (4, 11):
        pytest.skip('this OpenCV reads no AVIF')
    names = [f'{index}.{suffix}' for index in range(9)]  # more than are decoded
    for name in names:
        photograph(tmp_path / name)
    width, height = loads(tmp_path / names[0])
    is_turned = (width, height) == (30, 40)  # of WebP by OpenCV 5, not by 4.12
    assert is_turned or suffix != 'jpg'
    assert check_images(table(*names, width=width, height=height), str(tmp_path), each=each) == []
    swapped = table(*names, width=height, height=width)
    (problem,) = check_images(swapped, str(tmp_path), each=each)
    assert (problem.kind, problem.level, problem.count) == ('image_turned', 'error', 9)
    assert problem.examples[0] == f'{tmp_path}/{names[0]}: {width}x{height}, not {height}x{width}'
    way = "set color_type='color_ignore_orientation'" if is_turned else "imdecode_backend='pillow'"
    if suffix == 'tif':
        way = 'write the files anew in that size, without the tag'
    assert way in problem.remedy


@pytest.mark.parametrize('suffix', ['jpg', 'webp'])
def test_what_is_proposed_for_turned_photographs_is_clean(tmp_path, suffix):
    photograph(tmp_path / f'a.{suffix}')
    ways = {  # by the size that the loader gives
        (30, 40): dict(color_type='color_ignore_orientation'),
        (40, 30): dict(imdecode_backend='pillow'),
    }
    height, width = size = loads(tmp_path / f'a.{suffix}')
    wrong = table(f'a.{suffix}', width=width, height=height)
    assert len(check_images(wrong, str(tmp_path))) == 1
    assert check_images(wrong, str(tmp_path), dict(type='LoadImageFromFile', **ways[size])) == []


@BOTH
def test_tags_that_pil_and_the_loader_see_differently(tmp_path, each):
    """A PNG's tag after its pixels is OpenCV's alone, one in XMP is PIL's alone."""
    photograph(tmp_path / 'a.png')
    parts = re.split(rb'(?s)(....eXIf.*?)(?=....IDAT)', (tmp_path / 'a.png').read_bytes())
    end = parts[2].rindex(b'IEND') - 4
    (tmp_path / 'a.png').write_bytes(parts[0] + parts[2][:end] + parts[1] + parts[2][end:])
    description = f'<rdf:Description xmlns:tiff="{TIFF}" tiff:Orientation="6"/>'
    xmp = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{RDF}">{description}</rdf:RDF>'
    Image.fromarray(NOISE).save(tmp_path / 'a.jpg', xmp=f'{xmp}</x:xmpmeta>'.encode())
    for name, loaded in (('a.png', (30, 40)), ('a.jpg', (40, 30))):
        content = (tmp_path / name).read_bytes()
        names = [f'{index}{name}' for index in range(9)]
        for copy in names:
            (tmp_path / copy).write_bytes(content)
        assert loads(tmp_path / name) == loaded
        for width, height in (loaded, loaded[::-1]):
            files = table(*names, width=width, height=height)
            counts = [problem.count for problem in check_images(files, str(tmp_path), each=each)]
            assert counts == ([] if (width, height) == loaded else [9])


@BOTH
def test_photographs_upside_down_are_a_note_where_no_size_tells(tmp_path, each):
    photograph(tmp_path / 'a.jpg', orientation=3)
    assert found(check_images(table('a.jpg'), str(tmp_path), each=each)) == {
        ('note', 'image_upside_down'): (1, (f'{tmp_path}/a.jpg',))
    }
    photograph(tmp_path / 'b.jpg', orientation=8, size=(30, 40))  # annotated as turned
    assert check_images(table('a.jpg', 'b.jpg'), str(tmp_path), each=each) == []


@BOTH
@pytest.mark.parametrize('name', 'a.pfm a.hdr a.tga a.pcx a.gif a.webp a.bmp a.ppm a.jp2'.split())
def test_the_loader_decides_what_can_be_read(tmp_path, name, each):
    if name in ('a.pfm', 'a.hdr'):
        cv2.imwrite(str(tmp_path / name), NOISE.astype(np.float32))
    else:
        Image.fromarray(NOISE).save(tmp_path / name)
    problems = check_images(table(name), str(tmp_path), each=each)
    is_read = loads(tmp_path / name) is not None
    assert is_read == (name not in ('a.tga', 'a.pcx') and (name != 'a.gif' or OPENCV >= (4, 11)))
    assert [problem.kind for problem in problems] == ([] if is_read else ['image_broken'])
    pillow = dict(type='LoadImageFromFile', imdecode_backend='pillow')
    for problem in problems:
        assert "or set imdecode_backend='pillow'" in problem.remedy
        assert check_images(table(name), str(tmp_path), pillow, each) == []


@BOTH
def test_no_image_is_too_large_for_the_check_alone(folder, monkeypatch, each):
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100)  # PIL refuses twice as many
    monkeypatch.setattr(image_check, 'HUGE', 100)
    assert check_images(table('a.png', 'b.png'), str(folder), each=each) == []
    assert Image.MAX_IMAGE_PIXELS == 100


class TestDeepImages:
    def write(self, folder, low, high, dtype=np.uint16, suffix='png', count=9):
        """Half of each is low, half is high; returns their table."""
        names = [f'{index}.{suffix}' for index in range(count)]
        halves = np.repeat(np.array([[low] * 20 + [high] * 20], dtype), 30, axis=0)
        for name in names:
            cv2.imwrite(str(folder / name), halves)
        return table(*names)

    @BOTH
    @pytest.mark.parametrize('suffix', ['png', 'tif'])
    def test_twelve_bits_of_sixteen(self, tmp_path, suffix, each):
        files = self.write(tmp_path, 0, 4095, suffix=suffix)
        (problem,) = check_images(files, str(tmp_path), each=each)
        assert (problem.level, problem.kind, problem.count) == ('warning', 'image_deep', 9)
        assert problem.what == (
            '9 image files with 16-bit values, 0 to 4095 in those looked at; the loader makes '
            'them 0 to 15 of 255'
        )
        assert "dict(type='LoadScaledImage', low=0, high=4095)" in problem.remedy
        assert check_images(files, str(tmp_path), SCALED, each) == []

    def test_colours_too(self, tmp_path):
        cv2.imwrite(str(tmp_path / 'a.png'), NOISE.astype(np.uint16) * 16)
        (problem,) = check_images(table('a.png'), str(tmp_path))
        assert (problem.level, problem.kind) == ('warning', 'image_deep')

    def test_all_sixteen_bits_lose_nothing_that_matters(self, tmp_path):
        assert check_images(self.write(tmp_path, 0, 65535), str(tmp_path)) == []

    @BOTH
    def test_floating_point_values_need_another_loader(self, tmp_path, each):
        files = self.write(tmp_path, 0, 300, np.float32, 'tif')
        (problem,) = check_images(files, str(tmp_path), each=each)
        assert (problem.level, problem.kind, problem.count) == ('error', 'image_deep', 9)
        said = '32-bit values, 0 to 300 in those looked at; the loader cannot read them'
        assert problem.what == f'9 image files with {said}'
        assert loads(tmp_path / '0.tif') is None
        assert check_images(files, str(tmp_path), SCALED, each) == []
        read = LoadScaledImage(0, 300)(dict(img_path=str(tmp_path / '0.tif')))['img']
        assert (read[0, 0, 0], read[-1, -1, 0]) == (0, 255)


def test_the_loaders_own_words_are_told(folder):
    """That a decoder is unknown, or not installed, concerns no file."""
    unknown = dict(type='LoadImageFromFile', imdecode_backend='pilow')
    (problem,) = check_images(table('a.png', 'b.png'), str(folder), unknown)
    assert (problem.kind, problem.count) == ('image_broken', 2)
    assert problem.what.startswith('2 image files that cannot be read (')
    assert 'pilow' in problem.what
