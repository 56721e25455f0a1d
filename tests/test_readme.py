"""What README and docs name exists; the README's two languages agree, its code works as printed."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import zip_longest
from pathlib import Path

import pytest
import torch
from conftest import CONFIGS, tiny_model_cfg
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.runner import Runner

from mmdet_dino_r1.testing import ShapesConfig, generate_shapes

ROOT = Path(__file__).resolve().parents[1]
READMES = ('README.md', 'README.zh-CN.md')
PAGES = [*(ROOT / name for name in READMES), *sorted((ROOT / 'docs').glob('*.md'))]
PACKAGE = ROOT / 'mmdet_dino_r1'
TOOLS = {path.stem for path in (PACKAGE / 'tools').glob('*.py')}
CONFIG_NAMES = {path.stem for path in CONFIGS.glob('*.py')}


@pytest.mark.parametrize('page', PAGES, ids=lambda p: p.stem)
def test_commands_name_tools_and_configs_that_exist(page):
    text = page.read_text(encoding='utf-8')
    tools = set(re.findall(r'mim run mmdet_dino_r1 (\w+)', text))
    tools |= set(re.findall(r'-m mmdet_dino_r1\.tools\.(\w+)', text))
    assert tools - {'NAME'} <= TOOLS
    configs = set(re.findall(r'\b((?:dino_r1|vis_gdino|pet_dino)_(?:swin|r18|lite0)\w*)\.py', text))
    written_out = {name.replace('SIZE', size) for name in configs for size in 'tbl'}
    assert written_out <= CONFIG_NAMES


@pytest.mark.parametrize('page', PAGES, ids=lambda p: p.stem)
def test_links_between_pages_lead_somewhere(page):
    for link in re.findall(r'\]\(([^)]+)\)', page.read_text(encoding='utf-8')):
        if '://' not in link:
            target, _, anchor = link.partition('#')
            path = page.parent / target if target else page
            assert path.exists(), link
            assert not anchor or anchor in anchors(path.read_text(encoding='utf-8')), link


@pytest.mark.parametrize('page', PAGES, ids=lambda p: p.stem)
def test_files_named_in_code_exist(page):
    parts = '|'.join(path.name for path in PACKAGE.iterdir() if path.is_dir())
    text = page.read_text(encoding='utf-8')
    for name in re.findall(rf'`((?:{parts})/[\w/]*(?:\.py)?)`', text):
        assert (PACKAGE / name).exists(), name
    if page.stem != 'bad_input':  # tests/test_bad_input_table.py holds its rows
        for name in re.findall(r'\btests/[\w/]+(?:\.py)?', text):
            assert (ROOT / name).exists(), name


def test_the_first_screen(tmp_path, monkeypatch):
    """Its Python runs on the demo's set and weights; the exemplar is a box of that set."""
    text = (ROOT / 'README.md').read_text(encoding='utf-8')
    assert text.count('\n') <= 250
    first, code = re.findall(r'```python\n(.+?)```', text, re.S)[:2]
    # which tests/test_pet_dino_weights.py runs as that page prints it
    assert first in (ROOT / 'docs' / 'weights.md').read_text(encoding='utf-8')
    ((image, box, name),) = re.findall(
        r"image = 'data/shapes/(.+?)'\n.+Reference\(image, \[(.+?)\], \['(.+?)'\]", code
    )
    monkeypatch.chdir(tmp_path)
    few = dict(train_images=1, val_images=1, val_novel_images=1, prompts_novel_images=1)
    drawn = generate_shapes(tmp_path / 'data/shapes', ShapesConfig(**few))
    coco = json.loads((drawn / 'annotations/prompts_novel.json').read_text())
    names = {category['id']: category['name'] for category in coco['categories']}
    assert coco['images'][0]['file_name'] == image
    x, y, width, height = coco['annotations'][0]['bbox']
    assert json.loads(box) == [x, y, x + width, y + height]
    assert names[coco['annotations'][0]['category_id']].startswith(name)

    weights = tmp_path / 'work_dirs/demo/iter_500.pth'
    weights.parent.mkdir(parents=True)
    model = MODELS.build(Config.fromfile(CONFIGS / 'dino_r1_r18_shapes.py').model)
    torch.save(dict(state_dict=model.state_dict()), weights)
    scope = {}
    exec(code, scope)
    assert len(scope['results']['predictions']) == 1
    assert list((tmp_path / 'found/vis').iterdir())


def test_config_for_own_data_as_printed(tiny_shapes, tmp_path):
    """The README's file with its three lines changed: one step, one validation."""
    text = (ROOT / 'README.md').read_text(encoding='utf-8')
    (printed,) = re.findall(r'```python\n(# my_config\.py.*?)```', text, re.S)
    changed = {
        "'mmdet_dino_r1::configs/dino_r1_swin_t_finetune.py'": (
            f"'{CONFIGS / 'dino_r1_swin_t_finetune.py'}'"  # works without an install, too
        ),
        "root = 'data/mine/'": f"root = '{tiny_shapes}/'",
        "ann_file='train.json', data_prefix=dict(img='train/')": (
            "ann_file='annotations/train.json', data_prefix=dict(img='')"
        ),
        "ann_file='val.json', data_prefix=dict(img='val/')": (
            "ann_file='annotations/val.json', data_prefix=dict(img='')"
        ),
    }
    for old, new in changed.items():
        assert printed.count(old) == 1
        printed = printed.replace(old, new)
    path = tmp_path / 'my_config.py'
    path.write_text(printed)
    cfg = Config.fromfile(path)
    assert cfg.load_from.startswith('https://')
    assert cfg.model.backbone.type == 'FusedSwinTransformer'

    cfg.load_from = None
    cfg.model = tiny_model_cfg(dict())
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=1, val_interval=1)
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', by_epoch=False, interval=1)
    cfg.param_scheduler = None
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.num_workers, loader.persistent_workers, loader.batch_size = 0, False, 2
        for step in loader.dataset.pipeline:
            if step['type'] in ('FixScaleResize', 'RandomChoice'):
                step.update(type='Resize', scale=(64, 64), keep_ratio=True)
                step.pop('transforms', None), step.pop('backend', None)
    cfg.work_dir = str(tmp_path / 'work')
    cfg.experiment_name = cfg.visualizer.name = tmp_path.name
    Runner.from_cfg(cfg).train()
    assert (tmp_path / 'work' / 'iter_1.pth').is_file()
    assert list((tmp_path / 'work').glob('*/metrics/iter_1.json'))


# --------------------------------------------------------------------- two languages
Found = tuple[int, str]  # line of the page, what stands there
NUMBER = r'\d+(?:[.,/]\d+)*'


def differences(english: str, chinese: str) -> list[str]:
    """What one language of the README has and the other lacks, by section; words aside."""
    pages = sections(english), sections(chinese)
    for one, other in zip_longest(*pages, fillvalue=(0, 'the end', 0, '')):
        if one[0] != other[0]:
            where = [
                f'{name}:{line} ({"#" * level} {title})'
                for name, (level, title, line, _) in zip(READMES, (one, other), strict=True)
            ]
            return [f'the headings part at {" and ".join(where)}']
    said = []
    for (_, title, line, text), (_, _, other_line, other_text) in zip(*pages, strict=True):
        for what, read in READERS.items():
            found = list(read(text, line)), list(read(other_text, other_line))
            said += [f'section "{title}": {told}' for told in unlike(what, *found)]
    return said


def unlike(what: str, ours: list[Found], theirs: list[Found]) -> Iterator[str]:
    missing = False
    for name, other, found, known in zip(
        READMES, READMES[::-1], (ours, theirs), (theirs, ours), strict=True
    ):
        left = Counter(value for _, value in known)
        for line, value in found:
            left[value] -= 1
            if left[value] < 0:
                missing = True
                yield f'{name}:{line} has {what} {value!r}, {other} lacks it'
    if not missing and what in ORDERED:
        for (line, value), (other_line, other) in zip(ours, theirs, strict=True):
            if value != other:
                where = f'{READMES[0]}:{line}, {READMES[1]}:{other_line}'
                yield f'{what} {value!r} stands elsewhere ({where})'
                return


def sections(page: str) -> list[tuple[int, str, int, str]]:
    """Level, title, first line and text of each section, that before any heading first."""
    parts: list[tuple[int, str, int, list[str]]] = [(0, 'start', 1, [])]
    fenced = False
    for number, line in enumerate(page.splitlines(), 1):
        fenced ^= line.startswith('```')
        if not fenced and (heading := re.match(r'(#+) (.+)', line)):
            parts.append((len(heading[1]), heading[2], number, []))
        parts[-1][3].append(line)
    names = [slug(title) for _, title, *_ in parts]

    def numbered(link: re.Match) -> str:
        """A link within the page by the number of its heading, which has a name per language."""
        return f'](#heading-{names.index(link[1])})' if link[1] in names else link[0]

    return [
        (level, title, number, re.sub(r'\]\(#([^)]+)\)', numbered, '\n'.join(lines)))
        for level, title, number, lines in parts
    ]


def slug(title: str) -> str:
    """A heading as GitHub's links name it."""
    return re.sub(r'[^\w -]', '', title).lower().replace(' ', '-')


def anchors(page: str) -> set[str]:
    return {slug(title) for _, title, *_ in sections(page)}


def outside_code(text: str) -> str:
    """The text with fenced blocks blanked, line by line."""
    return re.sub(r'^```.*?^```$', lambda block: re.sub('.', '', block[0]), text, flags=re.S | re.M)


def matches(form: str, text: str, first: int) -> Iterator[Found]:
    for match in re.finditer(form, text):
        yield first + text.count('\n', 0, match.start()), ' '.join(match[1].split())


def code_lines(text: str, first: int) -> Iterator[Found]:
    """Lines of fenced blocks without their comments, fences included."""
    fenced = False
    for number, line in enumerate(text.splitlines(), first):
        if line.startswith('```') or fenced:
            yield number, re.sub(r'(^|\s+)#\s.*$', '', line)
        fenced ^= line.startswith('```')


def inline_code(text: str, first: int) -> Iterator[Found]:
    yield from matches(r'`([^`]+)`', outside_code(text), first)


def links(text: str, first: int) -> Iterator[Found]:
    """Targets of links and images."""
    for line, link in matches(r'(!?\[[^\]]*\]\([^)]+\))', outside_code(text), first):
        target = link.rpartition('(')[2][:-1]
        yield line, link[: link.startswith('!')] + re.sub('|'.join(READMES), 'README', target)


def table_rows(text: str, first: int) -> Iterator[Found]:
    """Of each cell of a row the numbers."""
    for number, line in enumerate(outside_code(text).splitlines(), first):
        if line.startswith('|'):
            cells = line.strip('| ').split('|')
            yield number, ' | '.join(' '.join(re.findall(NUMBER, cell)) for cell in cells)


def numbers(text: str, first: int) -> Iterator[Found]:
    """Numbers in the prose and in inline code."""
    text = re.sub(r'\]\([^)]*\)', ']', outside_code(text))
    yield from matches(f'({NUMBER})', text, first)


READERS: dict[str, Callable[[str, int], Iterator[Found]]] = {
    'the code line': code_lines,
    'the code': inline_code,
    'the link': links,
    'the table row with the numbers': table_rows,
    'the number': numbers,
}
ORDERED = ('the code line', 'the table row with the numbers')


@pytest.fixture
def readmes():
    return [(ROOT / name).read_text(encoding='utf-8') for name in READMES]


def test_both_languages_have_the_same_headings_code_links_and_numbers(readmes):
    found = differences(*readmes)
    assert not found, '\n'.join(['', *found])


@pytest.mark.parametrize(
    ('old', 'new', 'told'),
    [
        ('make test  ', 'make tests  ', "has the code line 'make tests'"),
        ('`make lint`', '`make lint` (`mim run mmdet_dino_r1 lint`)', 'mim run mmdet_dino_r1 lint'),
        ('`python -m mmdet_dino_r1.tools.train CONFIG`', 'a command', 'tools.train CONFIG'),
        ('dino_r1_swin_t_zeroshot_odinw13.py --', 'other.py --', 'zeroshot_odinw13.py'),
        ('(docs/export.md)', '(docs/inference.md)', "the link 'docs/export.md'"),
        ('![', '[', "the link '!docs/demo_detections.jpg'"),
        ('| 11.4 |', '| 11.5 |', '11.5'),
        ('| 11.4 |', '| 11.4 | 11.4 |', 'the table row'),
        ('2000', '2100', "the number '2100'"),
        ('### ', '#### ', 'the headings part'),
        ('# my_config.py', '# other_config.py', None),
    ],
)
def test_a_change_of_one_language_alone_is_told(readmes, old, new, told):
    for index in range(len(READMES)):
        changed = list(readmes)
        assert old in changed[index]
        changed[index] = changed[index].replace(old, new, 1)
        found = differences(*changed)
        if told is None:
            assert not found
        else:
            assert any(told in line for line in found)
            form = r'(section ".+": |the headings part at )README[\w.-]*:\d+ '
            assert all(re.match(form, line) for line in found)


def test_lines_of_code_keep_their_order(readmes):
    english, chinese = readmes
    lines = [
        "detector.set_prompts([Reference(image, [[82, 42, 117, 67]], ['ringed pebble'])])",
        "results = detector('data/shapes/images/val_novel', out_dir='found')",
    ]
    assert '\n'.join(lines) in english
    (told,) = differences(english.replace('\n'.join(lines), '\n'.join(lines[::-1])), chinese)
    assert 'stands elsewhere' in told
