"""Every kind of problem, by a small file that has it, with its count and examples."""

import copy
import json

import numpy as np
import pytest

from mmdet_dino_r1.checks import class_check, data_check
from mmdet_dino_r1.checks.annotation_table import AnnotationTable
from mmdet_dino_r1.checks.data_problem import meant, number, problems, quoted
from mmdet_dino_r1.datasets.exemplar_selection import candidate_boxes
from mmdet_dino_r1.structures.coco_file import read_coco

_GONE = object()
ALL_USES = ('train', 'val', 'prompts', 'metric')


def annotation(id_, image, category, box=(4, 4, 20, 10), **more):
    whole = dict(id=id_, image_id=image, category_id=category, bbox=list(box), iscrowd=0)
    return whole | dict(area=box[2] * box[3]) | more


def clean():
    """Two images of 40 x 30, three boxes, two classes; ids neither sorted nor dense."""
    return dict(
        images=[
            dict(id=5, file_name='a.png', width=40, height=30),
            dict(id=2, file_name='b.png', width=40, height=30),
        ],
        categories=[dict(id=7, name='zebra'), dict(id=3, name='apple')],
        annotations=[annotation(1, 5, 7), annotation(2, 5, 3), annotation(3, 2, 3)],
    )


def table(coco=None, path='f.json'):
    return AnnotationTable(coco or clean(), path)


def found(problems):
    """(level, kind): count and examples of each problem."""
    return {(p.level, p.kind): (p.count, p.examples) for p in problems}


def changed(**keys):
    """Problems of the clean file with keys of its second annotation changed; None removes."""
    coco = clean()
    for key, value in keys.items():
        if value is None:
            coco['annotations'][1].pop(key)
        else:
            coco['annotations'][1][key] = value
    return found(data_check.check_file(table(coco), ALL_USES))


def test_a_clean_file_has_no_problem():
    assert data_check.check_file(table(), ALL_USES) == []


def test_summary():
    coco = clean()
    coco['images'].append(dict(id=9, file_name='c.png', width=40, height=30))
    coco['annotations'].append(annotation(4, 2, 7, iscrowd=1))
    assert table(coco).summary() == dict(
        images=3,
        images_without_boxes=1,
        boxes=4,
        crowd_boxes=1,
        classes=2,
        boxes_by_class=dict(zebra=1, apple=2),
    )


class TestForm:
    @pytest.mark.parametrize(
        'coco', [[], {}, dict(images=[], annotations=[]), dict(clean(), images=[1])]
    )
    def test_what_is_not_coco(self, coco):
        with pytest.raises(ValueError, match='not a COCO annotation file'):
            AnnotationTable(coco, 'f.json')

    def test_categories_without_name(self):
        coco = clean()
        del coco['categories'][0]['name']
        with pytest.raises(ValueError, match='name'):
            AnnotationTable(coco, 'f.json')

    @pytest.mark.parametrize('key', ['image_id', 'category_id', 'bbox'])
    def test_keys_of_annotations(self, key):
        (level, kind), (count, examples) = next(iter(changed(**{key: None}).items()))
        assert (level, kind, count) == ('error', f'{key}_missing', 1)
        assert examples[0] == 'annotation 2' + ('' if key == 'image_id' else ' of image 5')

    @pytest.mark.parametrize(
        ('key', 'value', 'dataset', 'metric'),
        [
            *[('id', value, True, True) for value in (_GONE, None, [1])],
            *[('id', value, False, True) for value in (0, 'a1')],
            ('id', -7, False, False),
            *[('area', value, True, True) for value in (_GONE, None, '1120', True)],
            *[('iscrowd', value, False, True) for value in (_GONE, None)],
            *[(key, '0', True, True) for key in ('iscrowd', 'ignore')],
            ('iscrowd', True, False, False),
        ],
    )
    def test_what_mmdets_own_classes_cannot_read(self, key, value, dataset, metric):
        """Ours read all of it."""
        coco = clean()
        coco['annotations'][1].pop(key, None)
        if value is not _GONE:
            coco['annotations'][1][key] = value
        assert data_check.check_file(table(coco), ALL_USES) == []
        for reader, is_odd in (('CocoDataset', dataset), ('CocoMetric', metric)):
            said = data_check.check_file(table(coco), ALL_USES, [reader])
            assert [(p.kind, p.count) for p in said] == [('odd', 1)] * is_odd
            assert all(f"whose {key} mmdet's {reader} cannot" in p.what for p in said)
            assert all(reader.replace('Coco', 'CocoJson') in p.remedy for p in said)

    def test_a_size_that_is_a_text(self):
        coco = clean()
        coco['images'][1].update(width='40', height='30.0')
        assert table(coco).sizes.tolist() == [[40, 30], [40, 30]]
        assert data_check.check_file(table(coco), ALL_USES) == []
        assert found(data_check.check_file(table(coco), ALL_USES, ['CocoDataset'])) == {
            ('error', 'odd_size'): (1, ('image 2',))
        }

    def test_crowds(self):
        assert changed(iscrowd='maybe') == {
            ('error', 'crowd_unclear'): (1, ('annotation 2 of image 5',))
        }
        coco = clean()
        coco['annotations'] = [
            annotation(number, 5, 7, **flags)
            for number, flags in enumerate(
                [dict(iscrowd='0'), dict(iscrowd='1'), dict(ignore='0'), dict(ignore=True)]
            )
        ]
        assert table(coco).crowd.tolist() == [False, True, False, True]

    def test_a_file_of_a_test_set(self):
        coco = dict(clean(), annotations=[])
        assert data_check.check_file(table(coco), ['test', 'format']) == []
        del coco['annotations']
        assert table(coco).summary()['boxes'] == 0
        assert data_check.check_file(table(coco), ['test', 'format']) == []
        for use in ('train', 'prompts', 'metric'):
            (problem,) = data_check.check_file(table(coco), [use])
            assert (problem.level, problem.kind) == ('error', 'not_annotated')
            assert 'set format_only=True and outfile_prefix=PREFIX' in problem.remedy

    def test_lvis_has_no_iscrowd_and_names_images_by_url(self):
        coco = clean()
        for image in coco['images']:
            image['neg_category_ids'] = []
            image['coco_url'] = f'http://host/train2017/{image.pop("file_name")}'
        for ann in coco['annotations']:
            del ann['iscrowd']
        assert data_check.check_file(table(coco), ALL_USES) == []
        assert table(coco).files == ['train2017/a.png', 'train2017/b.png']


class TestImages:
    def problems(self, **keys):
        coco = clean()
        for key, value in keys.items():
            coco['images'][1].pop(key) if value is None else coco['images'][1].update({key: value})
        return found(data_check.check_file(table(coco), ALL_USES))

    def test_repeated_id(self):
        problems = self.problems(id=5)
        assert problems['error', 'image_id_repeated'] == (1, ('5',))
        assert problems['warning', 'image_unknown'][0] == 1

    def test_repeated_file(self):
        assert self.problems(file_name='a.png') == {
            ('warning', 'image_file_repeated'): (1, ('a.png',))
        }

    def test_no_file(self):
        assert self.problems(file_name=None) == {('error', 'image_file_missing'): (1, ('image 2',))}

    @pytest.mark.parametrize('width', [None, 0])
    def test_no_size(self, width):
        assert self.problems(width=width)['error', 'image_size_missing'] == (1, ('image 2',))


class TestCategories:
    def problems(self, **keys):
        coco = clean()
        coco['categories'][1].update(keys)
        return found(data_check.check_file(table(coco), ALL_USES))

    def test_repeated_name(self):
        assert self.problems(name='zebra') == {
            ('error', 'category_name_repeated'): (1, ("'zebra'",))
        }

    def test_repeated_id(self):
        assert self.problems(id=7)['error', 'category_id_repeated'] == (1, ('7',))

    def test_without_a_box(self):
        """In one file a warning; in all, as the root of a Roboflow export is, one note."""
        coco, other = clean(), clean()
        coco['categories'].insert(0, dict(id=0, name='fruit', supercategory='none'))
        coco['categories'].append(dict(id=8, name='quince'))
        other['categories'].append(dict(id=8, name='quince'))
        other['annotations'].append(annotation(9, 5, 8))
        empty, unused = class_check.check_empty([table(coco), table(other, 'g.json')])
        assert (empty.level, empty.where) == ('warning', 'f.json')
        assert (empty.what, empty.examples) == ('1 category of 4 without a box', ("'quince'",))
        assert (unused.level, unused.where, unused.count) == ('note', 'f.json', 1)
        assert unused.what.startswith('1 category without a box in any file')
        assert unused.examples == ("'fruit'",)
        assert [p.where for p in class_check.check_empty([table(coco), table(coco, 'g.json')])] == [
            'f.json, g.json'
        ]

    @pytest.mark.parametrize(
        ('crowds', 'level'), [(1, None), (2, None), (3, 'warning'), (8, 'error')]
    )
    @pytest.mark.parametrize('key', ['iscrowd', 'ignore'])
    def test_crowds(self, crowds, level, key):
        """Up to a quarter is usual: Pascal VOC has a fifth of difficult objects."""
        coco = clean()
        coco['annotations'] = [annotation(i, 5, 7) for i in range(8)]
        for number_, ann in enumerate(coco['annotations'][:crowds]):
            ann[key] = (1, True, '1')[number_ % 3]
        problems_ = class_check.check_crowds(table(coco))
        assert [(p.level, p.count) for p in problems_] == ([(level, crowds)] if level else [])
        if level:
            assert problems_[0].what.startswith(f'{crowds} boxes of 8 crowds or ignored')
            assert 'write iscrowd=0, and no ignore' in problems_[0].remedy


class TestReferences:
    def test_repeated_annotation_id(self):
        assert changed(id=1) == {}
        coco = clean()
        coco['annotations'][1]['id'] = 1
        for reader in ('CocoDataset', 'CocoMetric'):
            assert found(data_check.check_file(table(coco), ALL_USES, [reader])) == {
                ('error', 'annotation_id_repeated'): (1, ('1',))
            }

    def test_unknown_image(self):
        assert changed(image_id=77) == {('warning', 'image_unknown'): (1, ('annotation 2',))}

    def test_unknown_category(self):
        assert changed(category_id=77) == {
            ('warning', 'category_unknown'): (1, ('annotation 2 of image 5',))
        }


class TestBoxes:
    """The image is 40 x 30."""

    @pytest.mark.parametrize(
        ('box', 'kind', 'level'),
        [
            ([4, 4, float('nan'), 5], 'box_not_finite', 'error'),
            ([float('inf'), 4, 5, 5], 'box_not_finite', 'error'),
            ([4, 4, 5], 'box_not_finite', 'error'),
            ('4 4 5 5', 'box_not_finite', 'error'),
            ([4, 4, '5', 5], 'box_not_finite', 'error'),
            ([4, 4, 0, 5], 'box_flat', 'warning'),
            ([4, 4, 5, -5], 'box_flat', 'warning'),
            ([41, 4, 5, 5], 'box_outside', 'warning'),
            ([-9, 4, 9, 5], 'box_outside', 'warning'),
            ([4, 4, 0.5, 5], 'box_tiny', 'warning'),
            ([30, 4, 12, 5], 'box_beyond', 'warning'),
            ([-2, 4, 12, 5], 'box_beyond', 'warning'),
        ],
    )
    def test_kinds(self, box, kind, level):
        assert [*changed(bbox=box)] == [(level, kind)]

    def test_a_pixel_beyond_is_rounding(self):
        assert changed(bbox=[30, 4, 11, 5]) == {}

    def test_the_box_is_told(self):
        problems = changed(bbox=[41, 4, 5, 5.25])
        assert problems['warning', 'box_outside'] == (
            1,
            ('annotation 2 of image 5: [41.0, 4.0, 5.0, 5.2]',),
        )

    def test_area(self):
        assert [*changed(area=0)] == [('warning', 'area_flat')]

    def problems_of_all(self, box, **more):
        coco = clean()
        for ann in coco['annotations']:
            ann.update(bbox=box, **more)
        return {p.kind: p for p in data_check.check_file(table(coco), ALL_USES)}

    def test_corners_instead_of_sizes_are_an_error(self):
        problem = self.problems_of_all([20, 15, 39, 29])['box_beyond']
        assert problem.level == 'error'
        assert 'Corners [x1, y1, x2, y2]' in problem.remedy

    def test_fractions_of_the_image_are_an_error(self):
        problems = self.problems_of_all([0.1, 0.1, 0.5, 0.5])
        assert {kind: p.level for kind, p in problems.items()} == dict(
            box_tiny='error', no_box='error'
        )
        assert 'Fractions of the image look like this' in problems['box_tiny'].remedy
        assert problems['no_box'].what == 'none of its 3 boxes can be used'

    def test_areas_all_zero_are_an_error(self):
        assert self.problems_of_all([4, 4, 20, 10], area=0)['area_flat'].level == 'error'

    def test_no_boxes_at_all(self):
        coco = dict(clean(), annotations=[])
        assert found(data_check.check_file(table(coco), ALL_USES)) == {('error', 'no_box'): (0, ())}

    def test_what_counts_as_an_exemplar_is_what_may_become_one(self):
        generator = np.random.default_rng(0)
        coco = clean()
        coco['annotations'] = [
            annotation(i, [5, 2][i % 2], [7, 3][i % 3 % 2], box, iscrowd=int(i % 7 == 0))
            for i, box in enumerate(generator.uniform(-10, 45, (300, 4)).tolist())
        ]
        read = read_coco(json.dumps(coco).encode(), 'f.json')
        candidates = candidate_boxes(read, {7: 'zebra', 3: 'apple'})
        counted = table(coco).count(table(coco).is_exemplar)
        assert counted == [len(candidates['zebra']), len(candidates['apple'])]
        assert min(counted) > 10


class TestLabels:
    """mmdet's CocoDataset: the file's order, and silence about what does not match."""

    def check(self, wanted, by='file'):
        return class_check.check_labels(table(), wanted, 'KEY (CocoDataset)', by)

    def test_as_in_the_file(self):
        assert self.check(['zebra', 'apple']) == []
        assert self.check(['apple', 'zebra'], by='id') == []

    def test_cocos_classes_against_a_file_of_other_names(self):
        (problem,) = self.check([f'coco {n}' for n in range(80)])
        assert (problem.level, problem.kind) == ('error', 'classes_all_unknown')
        assert problem.what == (
            'none of the 80 classes of KEY (CocoDataset) is a category of the file, which has '
            "'zebra', 'apple': every box is dropped, and AP will be 0"
        )
        assert problem.remedy == (
            "Set type='CocoJsonDataset' without metainfo, which takes the classes from the file, "
            "or metainfo=dict(classes=('zebra', 'apple',))."
        )

    def test_another_order(self):
        (problem,) = self.check(['apple', 'zebra'])
        assert (problem.level, problem.kind) == ('error', 'classes_order')
        assert problem.examples == (
            "label 0: 'zebra', not 'apple'",
            "label 1: 'apple', not 'zebra'",
        )

    def test_a_misspelt_class(self):
        assert found(self.check(['Zebra', 'apple'])) == {
            ('warning', 'categories_dropped'): (1, ("'zebra' (near: Zebra)",)),
            ('error', 'classes_unknown'): (1, ("'Zebra' (near: zebra)",)),
        }

    def test_a_subset(self):
        (problem,) = self.check(['apple'])
        assert (
            problem.what == '1 category not among the classes of KEY (CocoDataset): 1 box dropped'
        )
        assert problem.level == 'warning'

    def test_coco_json_dataset_minds_names_alone(self):
        assert self.check(['apple', 'zebra'], 'name') == []
        assert found(self.check(['aple', 'zebra'], 'name')) == {
            ('error', 'classes_unknown'): (1, ("'aple' (near: apple)",))
        }


class TestBetweenFiles:
    def other(self, **names):
        """A file with other ids or names of categories: id7='zebra'."""
        coco = clean()
        coco['categories'] = [dict(id=int(key[2:]), name=name) for key, name in names.items()]
        return table(coco, 'g.json')

    def test_same_classes(self):
        assert class_check.check_same_classes(table(), table()) == []

    def test_names_that_differ(self):
        assert found(
            class_check.check_same_classes(table(), self.other(id7='Zebra', id3='kiwi'))
        ) == {
            ('warning', 'classes_not_trained'): (2, ("'Zebra' (near: zebra)", "'kiwi'")),
            ('warning', 'classes_not_evaluated'): (2, ("'zebra' (near: Zebra)", "'apple'")),
        }

    def test_ids_that_differ(self):
        problems = class_check.check_same_classes(table(), self.other(id7='apple', id3='zebra'))
        assert found(problems) == {
            ('note', 'class_ids_differ'): (2, ("'apple': 7, there 3", "'zebra': 3, there 7"))
        }

    def exemplars(self, prompts, **more):
        tested = table()
        return found(class_check.check_exemplars(prompts, tested, tested.names, **more))

    def test_every_class_has_an_exemplar(self):
        assert self.exemplars(table()) == {}
        assert self.exemplars(self.other(id7='apple', id3='zebra')) == {}
        assert self.exemplars(self.other(id7='new name', id3='apple'), match='id') == {}

    def test_a_class_without(self):
        coco = clean()
        coco['annotations'][0]['iscrowd'] = 1
        without = {('error', 'classes_without_prompt'): (1, ("'zebra' (near: zebra)",))}
        assert self.exemplars(table(coco)) == without
        assert [*self.exemplars(table(coco), skip_missing=True)] == [
            ('warning', 'classes_without_prompt')
        ]
        assert self.exemplars(self.other(id7='Zebra', id3='apple'))[
            'error', 'classes_without_prompt'
        ] == (1, ("'zebra' (near: Zebra)",))

    def test_a_class_that_the_tested_file_has_no_box_of_needs_none(self):
        coco = clean()
        coco['categories'].insert(0, dict(id=0, name='root'))
        tested, without_zebra = table(coco), clean()
        del without_zebra['annotations'][0]
        prompts = table(without_zebra, 'p.json')
        assert found(class_check.check_exemplars(prompts, tested, tested.names)) == {
            ('error', 'classes_without_prompt'): (1, ("'zebra' (near: zebra)",))
        }
        assert class_check.check_exemplars(table(), tested, tested.names) == []
        coco['annotations'] = []  # what its images show is not known
        (problem,) = class_check.check_exemplars(table(), table(coco), tested.names)
        assert (problem.level, problem.examples) == ('error', ("'root'",))

    def test_ids_that_mean_another_class(self):
        swapped = self.other(id7='apple', id3='zebra')
        assert self.exemplars(swapped, match='id') == {
            ('error', 'prompts_swapped'): (
                2,
                ("id 7: 'apple', there 'zebra'", "id 3: 'zebra', there 'apple'"),
            )
        }

    def metric(self, change=None, labels=('zebra', 'apple'), **more):
        """Problems of an evaluator with a changed file."""
        coco = clean()
        if change is not None:
            change(coco)
        problems = class_check.check_metric_file(
            table(), labels, table(coco, 'g.json'), 'KEY', **more
        )
        assert all(p.where == 'g.json' and 'KEY=f.json' in p.remedy for p in problems)
        return found(problems)

    @pytest.mark.parametrize('by_name', [True, False])
    def test_an_evaluator_of_the_same_data(self, by_name):
        def reorder(coco):
            coco['images'].reverse()
            coco['annotations'].reverse()
            coco['images'][0]['file_name'] = 'folder/b.jpg'
            coco['images'].append(dict(id=99, file_name='c.png', width=9, height=9))
            coco['annotations'].append(annotation(77, 99, 7))
            coco['categories'].append(dict(id=99, name='quince'))

        assert self.metric(by_name=by_name) == {}
        assert self.metric(reorder, by_name=by_name) == {}

    def test_an_evaluator_of_other_images(self):
        assert self.metric(lambda coco: coco['images'][0].update(id=50)) == {
            ('error', 'metric_of_other_images'): (1, ('image 5',))
        }

    @pytest.mark.parametrize('change', [dict(file_name='c.png'), dict(width=80)])
    def test_an_evaluator_of_other_pictures_under_the_same_ids(self, change):
        assert self.metric(lambda coco: coco['images'][1].update(change)) == {
            ('error', 'metric_of_other_pictures'): (1, ('image 2',))
        }

    def test_an_evaluator_that_lacks_a_class(self):
        assert self.metric(lambda coco: coco['categories'][1].update(name='Apple')) == {
            ('error', 'metric_lacks_classes'): (1, ("'apple' (near: Apple)",)),
            ('warning', 'metric_of_other_boxes'): (
                2,
                ('image 5: 2, there 1', 'image 2: 1, there 0'),
            ),
        }

    def test_the_order_of_categories_matters_to_mmdets_metric_alone(self):
        def reorder(coco):
            coco['categories'].reverse()

        assert self.metric(reorder) == {}
        assert self.metric(reorder, by_name=False) == {
            ('error', 'metric_class_order'): (2, ("'zebra'", "'apple'"))
        }

    def test_an_evaluator_of_other_boxes(self):
        assert self.metric(lambda coco: coco['annotations'].pop()) == {
            ('warning', 'metric_of_other_boxes'): (1, ('image 2: 1, there 0',))
        }
        assert self.metric(lambda coco: coco['annotations'].pop(), ['zebra']) == {}


def test_words():
    assert number(1, 'box', 'boxes') == '1 box'
    assert number(2, 'image') == '2 images'
    assert quoted(['a', 'b', 'c'], 2) == "'a', 'b' and 1 more"
    (problem,) = problems('category_empty', 'f.json', ['x'] * 5, meant([]), of=9)
    assert (problem.count, problem.examples) == (5, ("'x'",) * 3)


def test_nothing_is_changed():
    coco = clean()
    before = copy.deepcopy(coco)
    data_check.check_file(table(coco), ALL_USES)
    assert json.dumps(coco) == json.dumps(before)
