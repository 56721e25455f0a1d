"""What the one reader of COCO files makes of what other tools write."""

import json

import pytest

from mmdet_dino_r1.checks.annotation_table import AnnotationTable
from mmdet_dino_r1.structures.coco_file import check_classes, image_file, read_coco, same_picture

NAN, INF = float('nan'), float('inf')
LACKS = object()


def read(changes=(), image=(), **kwargs):
    """The file of one image and one annotation with changes of them, as it is read."""
    ann = dict(id=1, image_id=7, category_id=1, bbox=[1, 2, 30, 4.5], area=99, iscrowd=0)
    entry = dict(id=7, file_name='a.png', width=40, height=30)
    for owner, new in ((ann, changes), (entry, image)):
        for key, value in dict(new).items():
            owner.pop(key, None)
            if value is not LACKS:
                owner[key] = value
    coco = dict(images=[entry], categories=[dict(id=1, name='a')], annotations=[ann, dict(ann)])
    return read_coco(json.dumps(coco).encode(), 'f.json', **kwargs)


@pytest.mark.parametrize('id_', [0, -1, 'x', 2**63, 1.5, None, LACKS, [3]])
def test_annotations_are_numbered_anew(id_):
    assert [ann['id'] for ann in read(dict(id=id_))['annotations']] == [1, 2]


@pytest.mark.parametrize(
    ('given', 'area'),
    [(99, 99), (0, 0), (-3.5, -3.5)]
    + [(value, 135.0) for value in (None, LACKS, '1120', '', NAN, INF, True, [], 10**400)],
)
def test_area(given, area):
    """By hand: 30 x 4.5. mmdet drops what is not positive."""
    assert read(dict(area=given))['annotations'][0]['area'] == area


@pytest.mark.parametrize(
    ('given', 'flag'),
    [(value, 0) for value in (0, 0.0, False, None, '0', 'false', 'False')]
    + [(value, 1) for value in (1, 1.0, True, '1', 'true', 'TRUE')],
)
@pytest.mark.parametrize('key', ['iscrowd', 'ignore'])
def test_crowds(key, given, flag):
    value = read({key: given})['annotations'][0][key]
    assert value == flag and type(value) is int


@pytest.mark.parametrize('as_text', [('annotations',), ('images', 'categories')])
def test_an_id_may_be_text_in_one_list_and_a_number_in_another(as_text):
    image = dict(id=7, file_name='a.png', width=40, height=30)
    ann = dict(id=1, image_id=7, category_id=1, bbox=[1, 2, 30, 4.5], area=99, iscrowd=0)
    lists = dict(images=[image], categories=[dict(id=1, name='a')], annotations=[ann])
    for name in as_text:
        for key in lists[name][0].keys() & {'id', 'image_id', 'category_id'}:
            lists[name][0][key] = str(lists[name][0][key])
    coco = read_coco(json.dumps(lists).encode(), 'f.json')
    (read_ann,) = coco['annotations']
    assert read_ann['image_id'] == coco['images'][0]['id']
    assert read_ann['category_id'] == coco['categories'][0]['id']
    table = AnnotationTable(lists, 'f.json')
    assert (table.image.tolist(), table.category.tolist()) == ([0], [0])
    # mmdet's own finds neither
    assert {key: rows.tolist() for key, rows in table.odd_dataset.items() if len(rows)} == dict(
        image_id=[0], category_id=[0]
    )


def test_crowds_that_are_not_said():
    ann = read(dict(iscrowd=LACKS))['annotations'][0]
    assert ann['iscrowd'] == 0 and 'ignore' not in ann


@pytest.mark.parametrize('given', ['maybe', '', 2, -1, NAN, [], {}])
@pytest.mark.parametrize('key', ['iscrowd', 'ignore'])
def test_crowds_that_are_unclear(key, given):
    with pytest.raises(ValueError, match=f'f.json: annotation 1 of image 7 has {key}=.* neither 0'):
        read({key: given})


@pytest.mark.parametrize(
    ('given', 'size'), [(40, 40), (40.5, 40.5), ('40', 40), ('40.0', 40), (' 40 ', 40), (0, 0)]
)
def test_sizes(given, size):
    value = read(image=dict(width=given, height=given))['images'][0]
    assert (value['width'], value['height']) == (size, size)
    assert type(value['width']) is type(size)


@pytest.mark.parametrize('given', [None, LACKS, 'wide', NAN, INF, 'inf', 10**400, [40]])
def test_sizes_that_are_none(given):
    with pytest.raises(
        ValueError, match='f.json: image 7 has height=.*, which is no number.*check'
    ):
        read(image=dict(height=given))


@pytest.mark.parametrize(
    'changes',
    [dict(bbox=[NAN, 1, 2, 3]), dict(bbox=[1, 1, INF, 3]), dict(image_id=8), dict(category_id='2')],
)
def test_annotations_that_are_left_out(changes):
    assert read(changes)['annotations'] == []


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(bbox=LACKS), "lacks 'bbox'"),
        (dict(category_id=LACKS), "lacks 'category_id'"),
        (dict(bbox=[1, 2, 3]), r'bbox=\[1, 2, 3\], which is not four numbers'),
        (dict(bbox=[1, 2, 3, '4']), 'bbox=.* not four numbers'),
        (dict(bbox=[1, 2, 3, 10**400]), 'bbox=.* not four numbers'),
        (dict(bbox=[1, 2, True, 4]), 'bbox=.* not four numbers'),
        (dict(bbox=None), 'bbox=None.* not four numbers'),
        (dict(image_id=[7]), 'image_id or category_id that is neither'),
    ],
)
def test_annotations_that_stop(changes, message):
    with pytest.raises(ValueError, match=f'f.json: annotation 1 of image .* {message}'):
        read(changes)


@pytest.mark.parametrize('text', ['\ufeff{}', 'Ü'])
def test_encodings(text):
    encoding = 'utf-8' if text.startswith('\ufeff') else 'latin-1'
    with pytest.raises(ValueError, match='f.json is not COCO JSON'):
        read_coco(text.encode(encoding), 'f.json')


def test_many_classes_that_are_missing_are_told_in_short():
    """Whose names are looked for among a thousand; each takes a hundredth of a second."""
    with pytest.raises(ValueError, match=r"named 'a0' \(near: .* and 990 more; it has 1000\.$"):
        check_classes([f'a{i}' for i in range(1000)], [f'b{i}' for i in range(1000)], 'f.json')


def test_files():
    lvis = dict(coco_url='http://x/val2017/1.jpg', file_name='1.jpg', neg_category_ids=[])
    assert image_file(lvis) == 'val2017/1.jpg'
    assert image_file(dict(coco_url='http://x/val2017/1.jpg', file_name='1.jpg')) == '1.jpg'
    assert same_picture('/data/val/1.jpg', 'images/1.png')
    assert not same_picture('/data/val/1.jpg', '/data/val/2.jpg')
