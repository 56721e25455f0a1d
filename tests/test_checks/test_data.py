"""The data of a config from all sides, each file read once; what `mim train` makes of it."""

import json
from argparse import Namespace

import cv2
import numpy as np
import pytest
from conftest import CONFIGS
from mmengine.config import Config
from PIL import ExifTags, Image
from support_lists import write_support_list

from mmdet_dino_r1.checks import data
from mmdet_dino_r1.checks.data_problem import Problem, report_problems
from mmdet_dino_r1.checks.paths import needed_paths
from mmdet_dino_r1.tools import launch

NAMES = ('bolt', 'nut', 'gear')


def coco_file(folder, split, names=NAMES, change=None):
    """An annotation file of three images, one box of each class in each."""
    images = [dict(id=i, file_name=f'{i}.png', width=40, height=30) for i in range(1, 4)]
    categories = [dict(id=i, name=name) for i, name in enumerate(names, start=1)]
    annotations = [
        dict(image_id=i, category_id=c, bbox=[4, 4, 20, 10], area=200, iscrowd=0)
        for i in range(1, 4)
        for c in range(1, len(names) + 1)
    ]
    for number, annotation in enumerate(annotations, start=1):
        annotation['id'] = number
    coco = dict(images=images, categories=categories, annotations=annotations)
    if change is not None:
        change(coco)
    (folder / f'{split}.json').write_text(json.dumps(coco))
    (folder / split).mkdir(exist_ok=True)
    for image in images:
        cv2.imwrite(str(folder / split / image['file_name']), np.zeros((30, 40, 3), np.uint8))


@pytest.fixture
def root(tmp_path):
    for split in ('train', 'val'):
        coco_file(tmp_path, split)
    return tmp_path


def config(root, kind='CocoJsonDataset', **more):
    """Training and validation on ``root``, prompts from the training set."""

    def dataset(split):
        files = dict(ann_file=f'{split}.json', data_prefix=dict(img=f'{split}/'))
        return dict(type=kind, data_root=f'{root}/', **files, **more)

    return Config(
        dict(
            model=dict(bbox_head=dict(num_classes=80)),
            train_dataloader=dict(dataset=dict(type='RepeatDataset', dataset=dataset('train'))),
            val_dataloader=dict(dataset=dataset('val')),
            test_dataloader=dict(dataset=dataset('val')),
            val_evaluator=dict(type='CocoMetric', ann_file=f'{root}/val.json'),
            test_evaluator=dict(type='CocoMetric', ann_file=f'{root}/val.json'),
            default_hooks=dict(prompt_bank=dict(type='PromptBankHook', bank=dict(shots=2))),
        )
    )


def kinds(cfg, stage='train'):
    return [(p.level, p.kind) for p in data.find_problems(cfg, stage)]


class TestFindProblems:
    @pytest.mark.parametrize('stage', ['train', 'test', 'all'])
    def test_none(self, root, stage):
        assert kinds(config(root), stage) == []
        assert kinds(config(root, 'CocoDataset', metainfo=dict(classes=NAMES)), stage) == []

    def test_cocos_classes_against_ones_own_file(self, root):
        """The first thing to trip over: every box is dropped without a word, AP is 0."""
        problems = data.find_problems(config(root, 'CocoDataset'), 'train')
        assert [(p.level, p.kind) for p in problems] == [('error', 'classes_all_unknown')] * 2
        assert [p.where for p in problems] == [f'{root}/train.json', f'{root}/val.json']
        assert 'none of the 80 classes of train_dataloader.dataset.dataset (CocoDataset)' in (
            problems[0].what
        )
        assert "metainfo=dict(classes=('bolt', 'nut', 'gear',))" in problems[0].remedy

    def test_classes_without_the_comma(self, root):
        (problem, _) = data.find_problems(
            config(root, 'CocoDataset', metainfo=dict(classes='nut')), 'train'
        )
        assert (problem.kind, problem.level) == ('classes_no_list', 'error')
        assert "classes=('nut',)" in problem.remedy

    def test_classes_in_a_file(self, root):
        (root / 'names.txt').write_text('\n'.join(NAMES))
        cfg = config(root, 'CocoDataset', metainfo=dict(classes=str(root / 'names.txt')))
        assert kinds(cfg) == []

    def test_another_order(self, root):
        cfg = config(root, 'CocoDataset', metainfo=dict(classes=NAMES[::-1]))
        assert kinds(cfg) == [('error', 'classes_order')] * 2
        assert kinds(config(root, metainfo=dict(classes=NAMES[::-1]))) == []

    @pytest.mark.parametrize(
        ('wrap', 'key'),
        [
            (lambda one: one, 'val_evaluator'),
            (lambda one: [dict(type='DumpDetResults', out_file_path='x.pkl'), one], '1'),
            (lambda one: dict(type='Evaluator', metrics=[one]), 'metrics.0'),
        ],
    )
    @pytest.mark.parametrize('kind', ['CocoMetric', 'CocoJsonMetric', 'mmdet.CocoMetric'])
    def test_the_evaluator_was_forgotten(self, root, wrap, key, kind):
        """In a list and in a wrapper, too."""
        coco_file(root, 'other', change=lambda coco: coco['images'][0].update(id=99))
        cfg = config(root)
        cfg.val_evaluator = wrap(dict(type=kind, ann_file=f'{root}/other.json'))
        (problem,) = [p for p in data.find_problems(cfg, 'train') if p.is_error]
        assert (problem.kind, problem.examples) == ('metric_of_other_images', ('image 1',))
        assert problem.remedy.endswith(f'{key}.ann_file={root}/val.json')

    def test_an_evaluator_for_each_dataset(self, root):
        other = dict(type='CocoJsonDataset', data_root=f'{root}/', data_prefix=dict(img='val/'))

        def renumber(coco):
            coco['images'][0]['id'] = 99
            for annotation in coco['annotations'][:3]:
                annotation['image_id'] = 99

        coco_file(root, 'other', change=renumber)
        cfg = config(root)
        members = [cfg.val_dataloader.dataset, dict(other, ann_file='other.json')]
        cfg.val_dataloader.dataset = dict(type='ConcatDataset', datasets=members)
        metrics = [
            dict(type='CocoJsonMetric', ann_file=f'{root}/{name}.json') for name in ('val', 'other')
        ]
        cfg.val_evaluator = dict(type='MultiDatasetsEvaluator', metrics=metrics)
        assert kinds(cfg) == []
        cfg.val_evaluator.metrics[0] = dict(type='VOCMetric')
        assert kinds(cfg) == []
        cfg.val_evaluator.metrics = metrics[::-1]
        assert kinds(cfg) == [('error', 'metric_of_other_images')] * 2
        cfg.val_evaluator = metrics[0]
        assert kinds(cfg) == [('error', 'metric_of_other_images')]

    @pytest.mark.parametrize('kind', ['CocoMetric', 'CocoJsonMetric'])
    def test_an_evaluator_with_the_same_data_elsewhere(self, root, kind):
        (root / 'copy.json').write_text((root / 'val.json').read_text())
        cfg = config(root)
        cfg.val_evaluator.update(type=kind, ann_file=f'{root}/copy.json')
        assert kinds(cfg) == []

    def test_an_annotation_of_id_0_under_mmdets_metric(self, root):
        coco_file(root, 'val', change=lambda coco: coco['annotations'][0].update(id=0))
        cfg = config(root)
        assert kinds(cfg) == [('error', 'odd')]
        cfg.val_evaluator.type = 'CocoJsonMetric'
        assert kinds(cfg) == []
        group = dict(type='DatasetGroup', datasets=dict(a=cfg.val_dataloader.dataset))
        cfg.val_dataloader.dataset = group
        cfg.val_evaluator = dict(type='DatasetGroupEvaluator', metrics=dict(type='CocoMetric'))
        assert kinds(cfg) == [('error', 'odd')]
        cfg.val_evaluator.metrics.type = 'CocoJsonMetric'
        assert kinds(cfg) == []

    def test_other_names_in_validation(self, root):
        coco_file(root, 'val', ('Bolt', 'nut', 'gear'))
        assert kinds(config(root)) == [
            ('error', 'classes_without_prompt'),
            ('warning', 'classes_not_trained'),
            ('warning', 'classes_not_evaluated'),
        ]

    def test_classes_without_prompts_may_be_allowed(self, root):
        coco_file(root, 'val', (*NAMES, 'washer'))
        cfg = config(root)
        assert kinds(cfg)[0] == ('error', 'classes_without_prompt')
        cfg.default_hooks.prompt_bank.bank.skip_missing = True
        assert kinds(cfg)[0] == ('warning', 'classes_without_prompt')
        cfg.default_hooks.prompt_bank.protocol = 'visual_i'
        assert kinds(cfg) == [('warning', 'classes_not_trained')]

    def test_too_many_classes(self, root):
        cfg = config(root)
        cfg.model.bbox_head.num_classes = 3
        assert kinds(cfg) == []
        cfg.model.bbox_head.num_classes = 2
        (problem,) = data.find_problems(cfg, 'train')
        assert (problem.level, problem.kind) == ('error', 'num_classes')
        assert problem.what == '3 classes to train on, but model.bbox_head.num_classes is 2'
        assert 'model.bbox_head.num_classes=3' in problem.remedy

    def test_missing_images(self, root):
        for image in (root / 'train').iterdir():
            image.unlink()
        (problem,) = data.find_problems(config(root), 'train')
        assert problem.what == '3 image files of 3 missing'

    def test_images_that_are_tested_and_trained_on(self, root):
        cfg = config(root)
        cfg.val_dataloader.dataset.data_prefix = cfg.test_dataloader.dataset.data_prefix = dict(
            img='train'
        )
        (problem,) = data.find_problems(cfg, 'train')
        assert (problem.level, problem.kind) == ('warning', 'image_trained_on')
        assert problem.what == f'3 images of 3 also in {root}/train.json, which is trained on'
        assert problem.examples[0] == f'{root}/train/1.png'
        cfg.train_dataloader.dataset.dataset.data_prefix = dict(img='val')
        assert kinds(cfg) == []

    def test_images_without_boxes_need_not_be_there_where_training_leaves_them_out(self, root):
        coco_file(
            root,
            'train',
            change=lambda coco: coco['images'].append(
                dict(id=9, file_name='9.png', width=40, height=30)
            ),
        )
        (root / 'train' / '9.png').unlink()
        cfg = config(root, filter_cfg=dict(filter_empty_gt=True))
        assert kinds(cfg) == []
        assert [p.kind for p in data.check(cfg, 'train', each_image=True)[1]] == ['image_missing']
        assert kinds(config(root)) == [('error', 'image_missing')]

    def test_unreadable_images_that_training_may_skip_do_not_stop_it(self, root):
        (root / 'train' / '2.png').write_bytes(b'no image')
        assert kinds(config(root)) == [('error', 'image_broken')]
        cfg = config(root)
        cfg.train_dataloader.dataset.dataset.skip_unreadable = True
        assert kinds(cfg) == [('warning', 'image_broken')]

    def test_images_are_read_as_each_pipeline_does(self, root):
        image, exif = Image.new('RGB', (40, 30)), Image.Exif()
        exif[ExifTags.Base.Orientation] = 6
        for split in ('train', 'val'):
            image.save(root / split / '2.png', exif=exif)
        as_stored = dict(type='LoadImageFromFile', color_type='color_ignore_orientation')
        assert kinds(config(root, pipeline=[as_stored])) == []
        cfg = config(root, pipeline=[as_stored])
        cfg.train_dataloader.dataset.dataset.pipeline[0].color_type = 'color'
        (problem,) = data.find_problems(cfg, 'train')
        assert (problem.kind, problem.where) == ('image_turned', f'{root}/train.json')
        cfg = config(root, pipeline=[as_stored])
        cfg.val_dataloader.dataset.pipeline[0].color_type = 'color'  # of the exemplars, too
        found = {problem.where: problem.kind for problem in data.find_problems(cfg, 'train')}
        assert found == {f'{root}/{name}.json': 'image_turned' for name in ('train', 'val')}

    def test_what_mmdets_metric_needs_is_asked_of_its_file_alone(self, root):
        def without(coco):
            for annotation in coco['annotations']:
                del annotation['iscrowd']

        coco_file(root, 'train', change=without)
        assert kinds(config(root)) == []
        coco_file(root, 'val', change=without)
        (problem,) = data.find_problems(config(root), 'train')
        assert problem.what.startswith("9 annotations whose iscrowd mmdet's CocoMetric cannot read")
        assert problem.remedy.startswith("Set type='CocoJsonMetric' instead")
        cfg = config(root)
        cfg.val_evaluator.type = 'CocoJsonMetric'
        assert kinds(cfg) == []

    def test_a_file_without_annotations(self, root):
        coco_file(root, 'train', change=lambda coco: coco.update(annotations=[]))
        assert ('error', 'no_box') in kinds(config(root))

    @pytest.mark.parametrize('content', ['', '{"images": []}', '<annotation/>'])
    def test_no_coco_file(self, root, content):
        (root / 'train.json').write_text(content)
        (problem,) = data.find_problems(config(root), 'train')
        assert (problem.kind, problem.level) == ('not_coco', 'error')

    @pytest.mark.parametrize('encoding', ['utf-16', 'utf-8-sig', 'latin-1'])
    def test_another_encoding(self, root, encoding):
        """pycocotools opens the file as UTF-8; without this check, after the model was built."""
        coco = json.loads((root / 'train.json').read_text())
        coco['categories'][0]['name'] = 'Schlüssel'
        (root / 'train.json').write_text(json.dumps(coco, ensure_ascii=False), encoding)
        (problem,) = data.find_problems(config(root), 'train')
        assert (problem.kind, problem.level) == ('not_coco', 'error')
        assert problem.remedy.endswith('in UTF-8.')

    def test_what_is_missing_is_left_to_the_other_check(self, root):
        (root / 'val.json').unlink()
        assert kinds(config(root)) == []

    def test_large_files_are_left_to_the_tool(self, root, monkeypatch):
        monkeypatch.setattr(data, 'MAX_BYTES', 10)
        assert kinds(config(root)) == [('note', 'not_read')] * 2

    def test_each_file_is_parsed_once(self, root, monkeypatch):
        parsed = []
        table = data.AnnotationTable
        monkeypatch.setattr(
            data,
            'AnnotationTable',
            lambda coco, path: (parsed.append(path), table(coco, path))[1],
        )
        assert kinds(config(root), 'all') == []
        assert parsed == [f'{root}/train.json', f'{root}/val.json']

    def test_other_formats_are_not_read(self, root):
        assert kinds(config(root, 'VOCDataset')) == []
        assert kinds(config(root, 'NoSuchDataset')) == []

    def test_a_group_with_prompts_matched_by_id(self, root):
        coco_file(root, 'refs', NAMES[::-1])
        member = dict(data_root=f'{root}/', ann_file='val.json', data_prefix=dict(img='val/'))
        refs = dict(ann_file='refs.json', data_prefix=dict(img='refs/'))
        common = dict(type='CocoJsonDataset')
        cfg = config(root)
        cfg.test_dataloader.dataset = dict(
            type='DatasetGroup', common=common, datasets=dict(a=dict(member, prompts=refs))
        )
        assert kinds(cfg, 'test') == []
        cfg.test_dataloader.dataset.datasets.a.prompts.match = 'id'
        assert kinds(cfg, 'test') == [('error', 'prompts_swapped')]


class TestListOfExemplars:
    """``bank.support``: read as the dataset does, and looked at as other prompts are."""

    @pytest.fixture
    def cfg(self, root):
        write_support_list(root / 'train.json', root / 'list.json', 2)
        cfg = config(root)
        cfg.default_hooks.prompt_bank.bank.support = f'{root}/list.json'
        return cfg

    def change(self, root, *changes):
        """Change lines by number; None drops one."""
        lines = (root / 'list.json').read_text().splitlines()
        for number, edit in changes:
            entry = json.loads(lines[number - 1])
            instance = entry['detection']['instances'][0]
            edit(entry, instance)
            lines[number - 1] = json.dumps(entry)
        (root / 'list.json').write_text('\n'.join(lines))

    def test_all_is_well(self, cfg, root):
        assert kinds(cfg, 'all') == []
        assert data.explain_data(cfg, Namespace(config='c.py'), 'test') is None
        files = dict((table.path, uses) for table, uses in data.check(cfg, 'test')[0])
        assert files == {f'{root}/list.json': ['prompts'], f'{root}/val.json': ['test', 'metric']}

    def test_a_broken_line_is_named_by_its_number(self, cfg, root):
        self.change(root, (3, lambda entry, instance: instance.pop('bbox')))
        (problem,) = data.find_problems(cfg, 'train')
        assert (problem.level, problem.kind) == ('error', 'support_broken')
        assert problem.where == f'{root}/list.json'
        assert problem.what.startswith('line 3: bbox is None, which is not four numbers. A line')
        said = data.explain_data(cfg, Namespace(config='c.py'), 'test')  # before a test, too
        assert f'{root}/list.json: line 3: bbox is None' in said

    def test_boxes_that_a_training_would_drop_are_none_of_its_matters(self, cfg, root):
        self.change(root, (1, lambda entry, instance: instance.update(bbox=[-9, 9, 0.5, 20])))
        assert kinds(cfg) == []

    def test_flat_boxes_are_left_out(self, cfg, root):
        self.change(root, (1, lambda entry, instance: instance.update(bbox=[9, 9, 9, 20])))
        (problem,) = data.find_problems(cfg, 'train')
        assert (problem.level, problem.kind, problem.count) == ('warning', 'support_flat', 1)
        assert problem.examples == ("line 1: 'bolt' [9, 9, 9, 20]",)
        for number in (1, 2):
            self.change(root, (number, lambda entry, instance: instance.update(bbox=[9, 9, 9, 9])))
        assert {kind for _, kind in kinds(cfg)} == {
            *('classes_without_prompt', 'support_flat', 'category_empty'),
        }

    def test_names_that_differ_and_ids_that_do_not(self, cfg, root):
        def rename(entry, instance):
            instance['category'] = 'screw'

        self.change(root, (1, rename), (2, rename))
        assert kinds(cfg) == [('error', 'classes_without_prompt'), ('warning', 'support_untested')]
        *_, problem = data.find_problems(cfg, 'train')
        assert problem.examples == ("'screw'",) and 'bank.match=id' in problem.remedy
        cfg.default_hooks.prompt_bank.bank.match = 'id'
        assert kinds(cfg) == []
        self.change(root, *((n, lambda entry, instance: instance.update(label=9)) for n in (1, 2)))
        assert kinds(cfg) == [('error', 'classes_without_prompt'), ('warning', 'support_untested')]

    def test_images(self, cfg, root):
        (root / 'train/1.png').unlink()
        self.change(root, *((n, lambda entry, instance: entry.update(width=50)) for n in (2, 4, 6)))
        found = {(p.kind, p.where) for p in data.find_problems(cfg, 'test')}
        assert found == {
            ('image_missing', f'{root}/list.json'),
            ('image_size_differs', f'{root}/list.json'),
        }


class TestOneClassList:
    """Labels of files that one loader reads; mmdet puts them together whatever they stand for."""

    @pytest.fixture
    def cfg(self, root):
        coco_file(root, 'a', NAMES[:2])
        coco_file(root, 'b', NAMES[1:])
        cfg = config(root)
        cfg.default_hooks.prompt_bank.bank = dict(
            data_root=f'{root}/', ann_file='train.json', data_prefix=dict(img='train/')
        )
        return cfg

    def members(self, root, *splits, **more):
        files = [dict(ann_file=f'{s}.json', data_prefix=dict(img=f'{s}/')) for s in splits]
        return [
            dict(type='CocoJsonDataset', data_root=f'{root}/', **file, **more) for file in files
        ]

    def differing(self, cfg, stage='train'):
        return [p for p in data.find_problems(cfg, stage) if p.kind == 'labels_differ']

    @pytest.mark.parametrize(
        'outer', ['', 'RepeatDataset', 'ClassBalancedDataset', 'MultiImageMix']
    )
    @pytest.mark.parametrize('inner', ['', 'RepeatDataset', 'DatasetGroup'])
    def test_training_on_two_lists(self, cfg, root, outer, inner):
        a, b = self.members(root, 'a', 'b')
        if inner == 'DatasetGroup':
            a, b = (dict(type=inner, datasets=dict(x=one)) for one in (a, b))
        elif inner:
            a, b = (dict(type=inner, dataset=one) for one in (a, b))
        both = dict(type='ConcatDataset', datasets=[a, b])
        cfg.train_dataloader.dataset = dict(type=outer, dataset=both) if outer else both
        (problem,) = self.differing(cfg)
        assert (problem.level, problem.where) == ('error', f'{root}/b.json')
        assert problem.what == (
            f"its labels stand for 'nut', 'gear', those of {root}/a.json for 'bolt', 'nut', and "
            'train_dataloader reads both'
        )
        assert problem.remedy == (
            "Give each of these datasets type='CocoJsonDataset', fixed_classes=True, "
            "metainfo=dict(classes=('bolt', 'nut', 'gear',))."
        )

    def test_the_remedy_is_one(self, cfg, root):
        more = dict(fixed_classes=True, metainfo=dict(classes=NAMES))
        cfg.train_dataloader.dataset = dict(
            type='ConcatDataset', datasets=self.members(root, 'a', 'b', **more)
        )
        cfg.val_dataloader.dataset.update(more)
        assert [p for p in data.find_problems(cfg, 'train') if p.level == 'error'] == []
        cfg.model.bbox_head.num_classes = 2
        assert kinds(cfg) == [('error', 'num_classes')] * 2
        for member in cfg.train_dataloader.dataset.datasets:
            member.metainfo.classes = (*NAMES, 'bolts')
        (problem,) = [p for p in data.find_problems(cfg, 'train') if p.kind == 'classes_nowhere']
        assert (problem.level, problem.examples) == ('warning', ("'bolts' (near: bolt)",))

    def test_the_same_names_in_another_order(self, cfg, root):
        coco_file(root, 'c', NAMES[::-1])
        both = self.members(root, 'train', 'c')
        cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=both)
        assert [p.where for p in self.differing(cfg)] == [f'{root}/c.json']
        cfg.train_dataloader.dataset.datasets = self.members(root, 'train', 'val')
        assert self.differing(cfg) == []

    def test_names_that_look_alike_are_told(self, cfg, root):
        """Else both spellings would be trained as two classes by the remedy."""
        coco_file(root, 'c', ('Bolt ', 'nut', 'gear'))
        both = self.members(root, 'train', 'c')
        cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=both)
        (problem,) = self.differing(cfg)
        assert problem.what.endswith("reads both; 'bolt' and 'Bolt ' may be one class")

    def test_tested_together_or_each_by_itself(self, cfg, root):
        a, b = self.members(root, 'a', 'b')
        cfg.test_dataloader.dataset = dict(type='ConcatDataset', datasets=[a, b])
        (problem,) = self.differing(cfg, 'test')
        assert "test_evaluator=dict(type='DatasetGroupEvaluator'" in problem.remedy
        metric = dict(type='CocoMetric', metric='bbox')
        metrics = [dict(metric, ann_file=f'{root}/{split}.json') for split in 'ab']
        cfg.test_evaluator = dict(
            type='MultiDatasetsEvaluator', dataset_prefixes=['a', 'b'], metrics=metrics
        )
        assert self.differing(cfg, 'test') == []
        cfg.test_dataloader.dataset = dict(type='DatasetGroup', datasets=dict(a=a, b=b))
        cfg.test_evaluator = dict(type='DatasetGroupEvaluator', metrics=metric)
        assert self.differing(cfg, 'test') == []


def test_the_root_of_a_roboflow_export(root):
    """A category without a box, which all others name as their supercategory."""

    def with_root(coco):
        coco['categories'].insert(0, dict(id=0, name='parts', supercategory='none'))

    for split in ('train', 'val'):
        coco_file(root, split, change=with_root)
    assert kinds(config(root), 'all') == [('note', 'category_unused')]


@pytest.mark.parametrize('path', sorted(CONFIGS.glob('*swin_t*.py')), ids=lambda p: p.stem)
def test_shipped_configs_without_their_data(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = Config.fromfile(path)
    assert data.find_problems(cfg, 'all') == []
    assert needed_paths(cfg, Namespace(resume=None), 'all')


@pytest.mark.parametrize(('name', 'stage'), [('', 'all'), ('_novel', 'test')])
def test_the_shapes_set_has_no_problem(name, stage, tiny_shapes, tmp_path, monkeypatch):
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data' / 'shapes').symlink_to(tiny_shapes)
    monkeypatch.chdir(tmp_path)
    cfg = Config.fromfile(CONFIGS / f'dino_r1_r18_shapes{name}.py')
    assert kinds(cfg, stage) == []


class TestReport:
    def test_text(self):
        problems = [
            Problem('error', 'k', 'f.json', '5 boxes bad', 'Do.', 5, ('a', 'b', 'c')),
            Problem('warning', 'k', 'f.json', '1 box odd', 'See.', 1, ('d',)),
        ]
        assert report_problems(problems, 'x.py').splitlines() == [
            'the data of x.py: 1 error, 1 warning.',
            '  error: f.json: 5 boxes bad',
            '    a, b, c, …',
            '    Remedy: Do.',
            '  warning: f.json: 1 box odd',
            '    d',
            '    Remedy: See.',
        ]
        assert report_problems([], 'x.py') == 'the data of x.py: no problem found.'


class TestBeforeTraining:
    def start(self, cfg, stage='train'):
        return data.explain_data(cfg, Namespace(config='mine.py'), stage)

    def test_errors_stop(self, root):
        said = self.start(config(root, 'CocoDataset'))
        assert said.startswith('the data of mine.py: 2 errors.')
        assert "Set type='CocoJsonDataset'" in said
        assert said.endswith('To start nevertheless: --cfg-options check_data=False')
        assert self.start(config(root, 'CocoDataset'), 'test') is None

    def test_warnings_are_printed(self, root, capsys):
        coco_file(root, 'train', (*NAMES, 'washer'))
        assert self.start(config(root)) is None
        assert 'mine.py: 1 warning.' in capsys.readouterr().err

    def test_nothing_is_said_of_good_data(self, root, capsys):
        assert self.start(config(root)) is None
        assert capsys.readouterr().err == ''

    @pytest.mark.parametrize(
        ('rank', 'more', 'checked'), [('0', '', 1), ('1', '', 0), ('0', 'check_data = False', 0)]
    )
    def test_once_and_only_where_wanted(self, root, monkeypatch, rank, more, checked):
        path = root / 'mine.py'
        config(root).dump(path)
        path.write_text(f'{path.read_text()}\n{more}\n')
        script = root / 'train.py'
        script.write_text(
            'from argparse import Namespace\n'
            'def parse_args():\n'
            f'    return Namespace(config={str(path)!r}, cfg_options=None, resume=None,\n'
            "                     work_dir=None, launcher='pytorch')\n"
        )
        calls = []
        monkeypatch.chdir(root)  # where the work directory goes
        monkeypatch.setenv('RANK', rank)
        monkeypatch.setattr(launch, 'mmdet_script', lambda stage: script)
        monkeypatch.setattr(launch, 'join_processes_without_gpu', lambda launcher: None)
        monkeypatch.setattr(data, 'find_problems', lambda *args: calls.append(args) or [])
        launch.launch('train')
        assert len(calls) == checked
