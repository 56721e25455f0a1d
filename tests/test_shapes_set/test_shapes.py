import json
import os
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest

from mmdet_dino_r1.testing import (
    DIFFICULTIES,
    ShapesConfig,
    ShapesDifficulty,
    generate_shapes,
    shapes_checksums,
)
from mmdet_dino_r1.testing.shapes import SPLITS, _all_classes, _distractor_classes, _labels_of_image
from mmdet_dino_r1.testing.shapes_classes import (
    OUTLINES,
    TEXTURES,
    ShapeClass,
    class_distance,
    draw_classes,
)
from mmdet_dino_r1.testing.shapes_drawing import draw_image

TINY = ShapesConfig(
    image_size=64,
    num_base_classes=4,
    num_novel_classes=2,
    train_images=6,
    val_images=3,
    val_novel_images=3,
    prompts_novel_images=3,
)


def read(root, split):
    return json.loads((root / 'annotations' / f'{split}.json').read_text())


def contents(root):
    """Bytes of every file below a folder, by relative path."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob('*'))
        if path.is_file()
    }


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    return generate_shapes(tmp_path_factory.mktemp('shapes'), TINY)


def test_files_are_those_of_the_config(made):
    for split, num_images in zip(SPLITS, (6, 3, 3, 3), strict=True):
        coco = read(made, split)
        assert len(coco['images']) == num_images
        for image in coco['images']:
            pixels = cv2.imread(str(made / image['file_name']))
            assert pixels.shape == (64, 64, 3)
            assert (image['height'], image['width']) == (64, 64)


def test_base_and_novel_classes_are_apart(made):
    names = {}
    for split in SPLITS:
        categories = read(made, split)['categories']
        names[split] = {cat['id']: cat['name'] for cat in categories}
    assert list(names['train']) == [1, 2, 3, 4]
    assert list(names['val_novel']) == [5, 6]
    assert names['train'] == names['val']
    assert names['val_novel'] == names['prompts_novel']
    assert len({*names['train'].values(), *names['val_novel'].values()}) == 6


def test_boxes_lie_in_the_image_and_belong_to_the_split(made):
    for split in SPLITS:
        coco = read(made, split)
        ids = {cat['id'] for cat in coco['categories']}
        assert {ann['image_id'] for ann in coco['annotations']} == {
            image['id'] for image in coco['images']
        }
        for ann in coco['annotations']:
            x, y, width, height = ann['bbox']
            assert ann['category_id'] in ids
            assert x >= 0 and y >= 0 and x + width <= 64 and y + height <= 64
            assert 0 < ann['area'] <= width * height


@pytest.mark.parametrize(
    ('difficulty', 'annotations'), [('standard', '27624a741351fd12'), ('hard', 'ed763528ede2a743')]
)
def test_the_set_stays_what_it_was(tmp_path, difficulty, annotations):
    """Another box than those of version 1.0 needs another ``SHAPES_VERSION``."""
    config = replace(TINY, difficulty=DIFFICULTIES[difficulty])
    assert shapes_checksums(generate_shapes(tmp_path, config))['annotations'] == annotations


def test_result_does_not_depend_on_workers(made, tmp_path):
    assert contents(generate_shapes(tmp_path, TINY, workers=2)) == contents(made)
    assert shapes_checksums(tmp_path) == shapes_checksums(made)


def test_another_seed_gives_other_pixels_and_classes(made, tmp_path):
    generate_shapes(tmp_path, replace(TINY, seed=1))
    one, other = contents(made), contents(tmp_path)
    assert set(one) == set(other)
    assert all(one[name] != other[name] for name in one)


def test_an_image_does_not_depend_on_how_many_follow(made, tmp_path):
    generate_shapes(tmp_path, replace(TINY, train_images=2))
    one, other = contents(made), contents(tmp_path)
    for name in ('images/train/000000.png', 'images/train/000001.png'):
        assert one[name] == other[name]


def test_second_call_changes_nothing(tmp_path):
    generate_shapes(tmp_path, TINY)
    stamps = {path: os.stat(path).st_mtime_ns for path in tmp_path.rglob('*')}
    generate_shapes(tmp_path, TINY, progress=lambda done, total: pytest.fail('drew again'))
    assert stamps == {path: os.stat(path).st_mtime_ns for path in tmp_path.rglob('*')}


def test_other_config_is_refused_and_overwrite_leaves_no_rest(tmp_path):
    generate_shapes(tmp_path, TINY)
    smaller = replace(TINY, train_images=2)
    before = contents(tmp_path)
    with pytest.raises(FileExistsError, match='--overwrite'):
        generate_shapes(tmp_path, smaller)
    assert contents(tmp_path) == before

    mine = tmp_path / 'images' / 'train' / 'mine.png'
    mine.write_bytes(b'not of the set')
    generate_shapes(tmp_path, smaller, overwrite=True)
    assert sorted(path.name for path in mine.parent.iterdir()) == [
        '000000.png',
        '000001.png',
        'mine.png',
    ]
    assert len(read(tmp_path, 'train')['images']) == 2


def test_foreign_annotations_are_never_touched(tmp_path):
    foreign = tmp_path / 'annotations' / 'train.json'
    foreign.parent.mkdir()
    foreign.write_text('{"images": []}')
    with pytest.raises(FileExistsError, match='was not made by generate_shapes'):
        generate_shapes(tmp_path, TINY, overwrite=True)
    assert foreign.read_text() == '{"images": []}'


def test_a_set_cut_off_is_completed(made, tmp_path):
    generate_shapes(tmp_path, TINY)
    (tmp_path / 'annotations' / 'val_novel.json').unlink()
    (tmp_path / 'images' / 'val_novel' / '000001.png').unlink()
    assert contents(generate_shapes(tmp_path, TINY)) == contents(made)


def test_checksums_notice_a_pixel_an_annotation_and_a_missing_image(made, tmp_path):
    root = shutil.copytree(made, tmp_path / 'copy')
    before = shapes_checksums(root)
    assert [len(digits) for digits in before.values()] == [16, 16]
    path = root / 'images' / 'prompts_novel' / '000002.png'
    pixels = cv2.imread(str(path))
    pixels[63, 63, 2] ^= 1
    cv2.imwrite(str(path), pixels)
    one_pixel = shapes_checksums(root)
    assert one_pixel['annotations'] == before['annotations']
    assert one_pixel['pixels'] != before['pixels']

    coco = read(root, 'train')
    coco['annotations'][0]['area'] += 1
    (root / 'annotations' / 'train.json').write_text(json.dumps(coco, indent=1))
    one_box = shapes_checksums(root)
    assert one_box['annotations'] != before['annotations']
    assert one_box['pixels'] == one_pixel['pixels']
    coco['annotations'][0]['area'] -= 1  # how the file is laid out does not count
    (root / 'annotations' / 'train.json').write_text(json.dumps(coco, indent=1))
    assert shapes_checksums(root)['annotations'] == before['annotations']

    path.unlink()
    with pytest.raises(FileNotFoundError, match='000002.png is missing or broken; make the set'):
        shapes_checksums(root)


def test_options_of_later_are_written_down_only_where_they_are_used(made):
    """Sets made before them count as made."""
    before = (
        'class_distance object_side objects_per_image classes_per_image max_overlap min_visible '
        'stretch hue_jitter light_jitter clutter occluders blur noise'
    ).split()
    for split in SPLITS:
        assert list(read(made, split)['info']['config']['difficulty']) == before


@pytest.mark.parametrize(
    'change', [dict(image_size=31), dict(seed=-1), dict(val_images=0), dict(num_novel_classes=0)]
)
def test_config_out_of_range(change):
    with pytest.raises(ValueError, match=f'ShapesConfig.{next(iter(change))} must be at least'):
        ShapesConfig(**change)


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(near_duplicates=0.6), r'near_duplicates must lie in \[0, 0.5\], got 0.6'),
        (dict(near_duplicates=-0.1), r'near_duplicates must lie in \[0, 0.5\], got -0.1'),
        (dict(distractors=(3, 1)), r'distractors must be \(least, most\).*got \(3, 1\)'),
        (dict(distractors=(-1, 0)), r'distractors must be \(least, most\).*got \(-1, 0\)'),
    ],
)
def test_difficulty_out_of_range(change, message):
    with pytest.raises(ValueError, match=f'ShapesDifficulty.{message}'):
        ShapesDifficulty(**change)


def test_default_prompts_have_sixteen_shots_of_each_class():
    # The labels drawn; an object without a free place is rare.
    config = ShapesConfig()
    counts = np.zeros(10, int)
    for index in range(config.prompts_novel_images):
        rng = np.random.default_rng(index)
        for label in _labels_of_image(config, 'prompts_novel', index, rng):
            counts[label] += 1
    assert counts.min() >= 20


def test_default_classes_keep_their_distance():
    config = ShapesConfig()
    classes = draw_classes(40, config.difficulty.class_distance, np.random.default_rng(0))
    assert len({shape.name for shape in classes}) == 40
    assert (
        min(
            class_distance(one, other)
            for index, one in enumerate(classes)
            for other in classes[:index]
        )
        >= config.difficulty.class_distance
    )
    for shape in classes:
        texture, outline, _ = shape.name.split()
        assert texture in TEXTURES and outline in OUTLINES
        assert shape.profile.min() > 0
        assert shape.profile.mean() == pytest.approx(1)


@pytest.mark.parametrize('share, siblings', [(0.5, [1, 3, 5, 7, 9, 11]), (0.25, [3, 7, 11])])
def test_siblings_differ_from_the_class_before_them_in_one_attribute(share, siblings):
    # of this seed a first try is as good as equal to its original: it must be drawn again
    classes = draw_classes(12, 1.5, np.random.default_rng(3), near_duplicates=share)
    assert len({shape.name for shape in classes}) == 12
    changed = set()
    for index in range(12):
        one, other = classes[index - 1], classes[index]
        if index in siblings:
            differs = dict(
                outline=not np.array_equal(one.profile, other.profile),
                texture=one.texture != other.texture,
                colours=not np.array_equal(one.colours, other.colours),
            )
            assert sum(differs.values()) == 1
            assert one.frequency == other.frequency
            assert 0.6 <= class_distance(one, other) <= 1
            texture, outline, number = other.name.split()
            assert (texture, number) == (other.texture, f'{index + 1:02d}')
            assert differs['outline'] or outline == one.name.split()[1]
            changed |= {name for name, differ in differs.items() if differ}
        for stranger in classes[: index - (index in siblings)]:
            assert class_distance(stranger, other) >= 1.5
    assert share < 0.5 or changed == {'outline', 'texture', 'colours'}


def test_hard_sets_have_twins_within_a_split_only():
    config = ShapesConfig(difficulty=DIFFICULTIES['hard'])
    classes = _all_classes(config)
    twins = [class_distance(*classes[index : index + 2]) <= 1 for index in range(39)]
    # numbers 4, 8, ... 40 are the twins; 30 base classes, so none across
    assert twins == [index % 4 == 2 for index in range(39)]


def test_too_many_classes_for_the_distance():
    with pytest.raises(ValueError, match='lower it or ask for fewer'):
        draw_classes(3, 3.1, np.random.default_rng(0))


def test_class_distance_ignores_rotation_mirroring_and_colour_order():
    one = draw_classes(1, 0.0, np.random.default_rng(3))[0]
    turned = replace(
        one, profile=np.roll(one.profile, 17)[::-1], colours=one.colours[::-1], name='turned'
    )
    assert class_distance(one, one) == 0
    assert class_distance(one, turned) == pytest.approx(0, abs=1e-6)
    assert class_distance(one, replace(one, texture='other')) == 1


def test_boxes_are_tight_around_what_is_drawn():
    # Black discs on a background that is nowhere black, found again in the pixels.
    plain = ShapesDifficulty(
        clutter=(0, 0),
        occluders=(0, 0),
        blur=(0, 0),
        noise=0,
        hue_jitter=0,
        light_jitter=0,
        stretch=0,
    )
    disc = ShapeClass('disc', np.ones(72), 'plain', 3.0, np.zeros((2, 3)))
    for seed in range(5):
        image, (drawn,) = draw_image([disc], [0], 64, plain, np.random.default_rng(seed))
        rows, columns = np.nonzero((image == 0).all(axis=2))
        x1, y1, x2, y2 = drawn.box()
        found = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        # the edge is half covered, so it may count or not
        np.testing.assert_allclose((x1, y1, x2, y2), found, atol=1)


def test_distractors_lie_behind_and_are_never_annotated(tmp_path):
    # White discs to find, black ones that are none, on a background that is neither.
    plain = replace(
        DIFFICULTIES['hard'],
        clutter=(0, 0),
        occluders=(0, 0),
        blur=(0, 0),
        noise=0,
        light_jitter=0,
        distractors=(3, 3),
    )
    white = ShapeClass('white', np.ones(72), 'plain', 3.0, np.full((2, 3), 255.0))
    black = replace(white, name='black', colours=np.zeros((2, 3)))
    seen = 0
    for seed in range(5):
        rng = np.random.default_rng(seed)
        image, objects = draw_image([white], [0, 0], 64, plain, rng, [black])
        assert {drawn.label for drawn in objects} == {0}
        distractors = (image == 0).all(axis=2)
        seen += distractors.any()
        for drawn in objects:
            assert not (distractors & drawn.visible).any()
    assert seen == 5

    config = replace(TINY, difficulty=ShapesDifficulty(distractors=(2, 2)))
    generate_shapes(tmp_path, config)
    for split, ids in zip(SPLITS, ([1, 2, 3, 4], [1, 2, 3, 4], [5, 6], [5, 6]), strict=True):
        coco = read(tmp_path, split)
        assert [cat['id'] for cat in coco['categories']] == ids
        assert {ann['category_id'] for ann in coco['annotations']} <= set(ids)
        assert coco['info']['config']['difficulty']['distractors'] == [2, 2]


def test_distractors_look_like_no_class():
    config = ShapesConfig(difficulty=DIFFICULTIES['hard'])
    others, classes = _distractor_classes(config), _all_classes(config)
    assert (len(others), len(classes)) == (12, 40)
    # drawn without a look at the classes the nearest would be 0.33 away
    assert min(class_distance(one, other) for one in others for other in classes) >= 1.5
    assert _distractor_classes(ShapesConfig()) == ()


def test_no_object_is_hidden_more_than_allowed():
    config = ShapesConfig(difficulty=ShapesDifficulty(max_overlap=1.0, occluders=(6, 6)))
    classes = draw_classes(3, 0.5, np.random.default_rng(0))
    partly = 0
    for seed in range(5):
        rng = np.random.default_rng(seed)
        _, objects = draw_image(classes, [0, 1, 2, 0, 1, 2], 128, config.difficulty, rng)
        assert len(objects) >= 1
        for drawn in objects:
            share = drawn.visible.sum() / drawn.full_area
            assert share >= config.difficulty.min_visible
            partly += share < 0.9
        # a pixel shows one object at most
        assert sum(drawn.visible.astype(int) for drawn in objects).max() == 1
    assert partly > 0
