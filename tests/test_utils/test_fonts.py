"""Names in any script on pictures: which font is taken, what is drawn, what is said without one."""

import warnings
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
import torch
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from mmdet.registry import VISUALIZERS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.structures import InstanceData

from mmdet_dino_r1.apis.inferencer import DINOR1Inferencer
from mmdet_dino_r1.engine.hooks.first_batch_hook import draw_batch
from mmdet_dino_r1.lab.figure import new_figure, rendered
from mmdet_dino_r1.utils import fonts

NAME, SWAPPED = '螺丝 ねじ 나사', '丝螺 じね 사나'  # squares would look the same
SAMPLE = DetDataSample(
    pred_instances=InstanceData(
        bboxes=torch.tensor([[4.0, 4, 150, 50]]), labels=torch.tensor([0]), scores=torch.ones(1)
    ),
    gt_instances=InstanceData(bboxes=torch.tensor([[4.0, 4, 150, 50]]), labels=torch.tensor([0])),
    metainfo=dict(img_shape=(60, 160), img_path='a.jpg'),
)
IMAGE = np.full((60, 160, 3), 90, np.uint8)


@pytest.fixture(autouse=True)
def fresh():
    """A process that has drawn nothing, where a missing glyph is an error."""
    fonts._font_for.cache_clear()
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings('error', message='Glyph')
        yield
    fonts._font_for.cache_clear()


def by_visualizer(name):
    """As pictures of ``mim test`` are drawn."""
    visualizer = VISUALIZERS.build(dict(type='LegibleVisualizer', name='legible'))
    visualizer.dataset_meta = dict(classes=(name,), palette=[(9, 9, 9)])
    visualizer.add_datasample('a', IMAGE, SAMPLE, draw_gt=False)
    return visualizer.get_image()


def by_inferencer(name):
    inferencer = object.__new__(DINOR1Inferencer)
    config = Config(dict(visualizer=dict(type='DetLocalVisualizer')))
    inferencer.visualizer = inferencer._init_visualizer(config)
    image = SimpleNamespace(name='a', pixels=IMAGE)
    return inferencer.visualize(image, SAMPLE, [name])


def by_first_batch(name):
    return draw_batch(IMAGE[None], [SAMPLE], torch.zeros(0), torch.zeros(0, 4), [name])


def by_figure(name):
    figure = new_figure(3, 2)
    figure.subplots().plot([-1, 1], label=name)
    figure.legend()
    return rendered(figure)


DRAWN = [by_visualizer, by_inferencer, by_first_batch, by_figure]


@pytest.mark.parametrize('drawn', DRAWN)
def test_chinese_japanese_and_korean_names_are_readable_on_pictures(drawn):
    pytest.importorskip('noto_cjk_sans_jp_regular')
    assert (drawn(NAME) != drawn(SWAPPED)).any()
    assert np.array_equal(drawn('screw'), drawn('screw'))


@pytest.mark.parametrize('drawn', DRAWN[:3])
def test_without_a_font_a_number_is_drawn_and_the_remedy_told_once(drawn, monkeypatch):
    default = next(fonts._fonts())
    told = []
    monkeypatch.setattr(fonts, '_fonts', lambda: iter([default]))
    monkeypatch.setattr(fonts, 'print_log', lambda message, **_: told.append(message))
    assert np.array_equal(drawn(NAME), drawn('class 0'))
    drawn(NAME)
    assert len(told) == 1 and 'No font here has' in told[0]
    assert '`pip install noto-cjk-sans-jp-regular`' in told[0]
    assert fonts.legible(['cat', NAME, 'café', 'Ж']) == ['cat', 'class 1', 'café', 'Ж']


@pytest.mark.parametrize('drawn', DRAWN)
def test_dollar_signs_are_drawn_not_read_as_formulas(drawn):
    assert (drawn('a$_$b') != drawn('a_b')).any()  # matplotlib stops at this formula
    assert (drawn('a$b$') != drawn('ab')).any()
    assert drawn('US$5').any()


def font_with(path, letters):
    """A font whose letters are all one triangle."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    pen.lineTo((500, 0))
    pen.lineTo((250, 700))
    pen.closePath()
    names = ['.notdef', *(f'letter{ord(letter)}' for letter in letters)]
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(letter): f'letter{ord(letter)}' for letter in letters})
    builder.setupGlyf(dict.fromkeys(names, pen.glyph()))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (600, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable(dict(familyName=path.stem, styleName='Regular'))
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return str(path)


def test_the_first_regular_font_with_all_letters_is_taken(tmp_path, monkeypatch):
    (tmp_path / 'AASans.ttf').write_bytes(b'damaged')
    some = font_with(tmp_path / 'ABSans.ttf', 'ก ')
    light = font_with(tmp_path / 'ACSansLight.ttf', 'กข ')
    regular = font_with(tmp_path / 'ADSans.ttf', 'กข ')
    files = [light, regular, some, str(tmp_path / 'AASans.ttf')]
    monkeypatch.setattr('matplotlib.font_manager.findSystemFonts', lambda: files)
    assert fonts.legible(['กข ก', 'ข']) == ['กข ก', 'ข']
    assert matplotlib.rcParams['font.sans-serif'][0] == 'ADSans'
    assert fonts.legible(['ก', 'กค', 'ขค']) == ['ก', 'class 1', 'class 2']  # one letter nobody has
    assert fonts.legible(['cat']) == ['cat']
    assert matplotlib.rcParams['font.sans-serif'][0] == 'DejaVu Sans'
    assert matplotlib.rcParams['font.sans-serif'].count('DejaVu Sans') == 1
