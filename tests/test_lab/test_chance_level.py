import json

import pytest

from mmdet_dino_r1.lab.chance_level import chance_ap50


def write(path, num_classes, num_images=20, crowd=0):
    """One box per image, classes in turn."""
    images = [dict(id=i, file_name='x', width=50, height=50) for i in range(1, num_images + 1)]
    annotations = [
        dict(
            id=i,
            image_id=i,
            category_id=10 + i % num_classes,
            bbox=[5, 5, 20, 20],
            area=400,
            iscrowd=crowd,
        )
        for i in range(1, num_images + 1)
    ]
    categories = [dict(id=10 + i, name=f'class {i}') for i in range(num_classes)]
    path.write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))
    return str(path)


@pytest.mark.parametrize('every_class', [False, True])
def test_one_class_is_always_guessed_right(tmp_path, every_class):
    path = write(tmp_path / 'one.json', num_classes=1)
    assert chance_ap50(path, every_class, draws=2) == pytest.approx(1.0)


def test_every_class_per_box_comes_to_the_share_of_a_class(tmp_path):
    # All boxes are found as class c in random order, a quarter of them rightly:
    # precision is 1/4 at every recall, a little more by COCO's interpolation.
    path = write(tmp_path / 'four.json', num_classes=4, num_images=400)
    chance = chance_ap50(path, every_class=True, draws=3)
    assert 0.25 < chance < 0.30


def test_one_guess_per_box_finds_a_share_of_a_class_only(tmp_path):
    # Precision 1/4 up to a recall of 1/4, then nothing.
    path = write(tmp_path / 'four.json', num_classes=4, num_images=400)
    chance = chance_ap50(path, every_class=False, draws=3)
    assert 1 / 16 < chance < 0.11


def test_same_seed_gives_the_same_level(tmp_path):
    path = write(tmp_path / 'three.json', num_classes=3)
    first = chance_ap50(path, False, draws=2, seed=1)
    assert chance_ap50(path, False, draws=2, seed=1) == first
    assert chance_ap50(path, False, draws=2, seed=2) != first


def test_prints_nothing(tmp_path, capsys):
    chance_ap50(write(tmp_path / 'one.json', num_classes=1), False, draws=1)
    assert capsys.readouterr().out == ''


def test_set_without_boxes(tmp_path):
    with pytest.raises(ValueError, match='crowds.json has no boxes'):
        chance_ap50(write(tmp_path / 'crowds.json', num_classes=2, crowd=1), False)
