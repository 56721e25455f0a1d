"""Every missing path is found before anything is built, and said in one message."""

from argparse import Namespace

import pytest
from mmengine.config import Config

from mmdet_dino_r1.tools.preflight import find_missing, report_missing


def train_args(**args):
    return Namespace(**dict(dict(resume=None), **args))


def coco(root='data/coco/', split='train', **more):
    files = dict(ann_file=f'annotations/{split}.json', data_prefix=dict(img=f'{split}/'))
    return dict(type='CocoDataset', data_root=root, **(files | more))


def missing(cfg, stage='train', **args):
    if stage == 'train':
        args = train_args(**args)
    else:
        args = Namespace(**args)
    return [(item.owner, item.key, item.path) for item in find_missing(Config(cfg), args, stage)]


@pytest.fixture
def complete(tmp_path):
    """A data root that holds what coco(root) names."""
    for split in ('train', 'val'):
        (tmp_path / split).mkdir()
        (tmp_path / 'annotations').mkdir(exist_ok=True)
        (tmp_path / 'annotations' / f'{split}.json').touch()
    return f'{tmp_path}/'


def test_all_that_is_missing_in_order():
    cfg = dict(
        train_dataloader=dict(dataset=coco()),
        val_dataloader=dict(dataset=coco(split='val')),
        val_evaluator=dict(type='CocoMetric', ann_file='data/coco/annotations/val.json'),
    )
    assert missing(cfg) == [
        ('train_dataloader.dataset (CocoDataset)', 'ann_file', 'data/coco/annotations/train.json'),
        ('train_dataloader.dataset (CocoDataset)', 'data_prefix.img', 'data/coco/train/'),
        ('val_dataloader.dataset (CocoDataset)', 'ann_file', 'data/coco/annotations/val.json'),
        ('val_dataloader.dataset (CocoDataset)', 'data_prefix.img', 'data/coco/val/'),
        ('val_evaluator (CocoMetric)', 'ann_file', 'data/coco/annotations/val.json'),
    ]


def test_nothing_is_missing(complete):
    cfg = dict(
        train_dataloader=dict(dataset=coco(complete)),
        val_dataloader=dict(dataset=coco(complete, 'val')),
        val_evaluator=dict(type='CocoMetric', ann_file=f'{complete}annotations/val.json'),
    )
    assert missing(cfg) == []


@pytest.mark.parametrize('nothing', [{}, dict(train_cfg=None, val_cfg=None, val_dataloader=None)])
def test_configs_without_the_parts(nothing):
    assert missing(nothing) == []


def test_wrappers_are_looked_into(complete):
    inner = dict(type='RepeatDataset', times=2, dataset=coco('nowhere'))
    outer = dict(type='ConcatDataset', datasets=[coco(complete), inner])
    cfg = dict(train_dataloader=dict(dataset=dict(type='MultiImageMixDataset', dataset=outer)))
    assert [owner for owner, *_ in missing(cfg)] == [
        'train_dataloader.dataset.dataset.datasets.1.dataset (CocoDataset)'
    ] * 2


def test_paths_are_joined_as_mmengine_joins_them(complete):
    absolute = coco(
        'nowhere',
        ann_file=f'{complete}annotations/train.json',
        data_prefix=dict(img=f'{complete}train'),
    )
    assert missing(dict(train_dataloader=dict(dataset=absolute))) == []
    no_root = dict(type='CocoDataset', ann_file='gone.json', data_prefix=dict(img=''))
    assert [path for *_, path in missing(dict(train_dataloader=dict(dataset=no_root)))] == [
        'gone.json'
    ]
    images_in_root = coco(complete, data_prefix=dict(img=''))
    assert missing(dict(train_dataloader=dict(dataset=images_in_root))) == []


@pytest.mark.parametrize(
    'remote',
    [
        coco('s3://bucket/coco/'),
        coco('https://host/coco/'),
        coco(backend_args=dict(backend='petrel')),
    ],
)
def test_what_is_not_local_is_left_alone(remote):
    assert missing(dict(train_dataloader=dict(dataset=remote))) == []


def test_metrics_in_lists_and_evaluators():
    metrics = [dict(type='CocoMetric', ann_file='a.json'), dict(type='CocoMetric')]
    cfg = dict(test_evaluator=dict(type='MultiDatasetsEvaluator', metrics=metrics))
    found = missing(cfg, 'test', checkpoint='https://host/x.pth')
    assert found == [('test_evaluator.metrics.0 (CocoMetric)', 'ann_file', 'a.json')]
    found = missing(dict(test_evaluator=metrics), 'test', checkpoint='https://host/x.pth')
    assert found == [('test_evaluator.0 (CocoMetric)', 'ann_file', 'a.json')]


class TestPromptBank:
    """Prompts come from a file, a named split or the training split."""

    def find(self, bank, complete, stage='test', **parts):
        hook = dict(type='PromptBankHook', bank=bank)
        cfg = dict(
            test_dataloader=dict(dataset=coco(complete, 'val')),
            default_hooks=dict(prompt_bank=hook),
            **parts,
        )
        return missing(cfg, stage, checkpoint='https://host/x.pth')

    def test_a_file(self, complete):
        owner = 'default_hooks.prompt_bank (PromptBankHook)'
        assert self.find('bank.pt', complete) == [(owner, 'bank', 'bank.pt')]

    def test_a_split_of_its_own(self, complete):
        bank = dict(data_root=complete, ann_file='annotations/novel.json', data_prefix=dict(img=''))
        found = self.find(bank, complete)
        assert [item[1:] for item in found] == [
            ('ann_file', f'{complete}annotations/novel.json'),
        ]

    @pytest.mark.parametrize('bank', [None, dict(shots=16)])
    def test_the_training_split_in_a_test(self, bank, complete):
        found = self.find(bank, complete, train_dataloader=dict(dataset=coco('nowhere')))
        assert [item[0] for item in found] == ['train_dataloader.dataset (CocoDataset)'] * 2

    def test_no_hook_needs_no_training_split(self, complete):
        cfg = dict(
            train_dataloader=dict(dataset=coco('nowhere')),
            test_dataloader=dict(dataset=coco(complete, 'val')),
        )
        assert missing(cfg, 'test', checkpoint='https://host/x.pth') == []


class TestWeights:
    """Checkpoints named on the command line or in the config."""

    def keys(self, cfg, stage='train', **args):
        return [key for _, key, _ in missing(cfg, stage, **args)]

    def test_checkpoint_of_a_test(self):
        assert self.keys({}, 'test', checkpoint='gone.pth') == ['checkpoint']

    def test_load_from(self, tmp_path):
        weights = tmp_path / 'x.pth'
        assert self.keys(dict(load_from=str(weights))) == ['load_from']
        weights.touch()
        assert self.keys(dict(load_from=str(weights))) == []
        assert self.keys(dict(load_from='https://host/x.pth')) == []

    def test_resume_replaces_load_from(self):
        assert self.keys(dict(load_from='gone.pth'), resume='auto') == []
        assert self.keys(dict(load_from='gone.pth'), resume='last.pth') == ['--resume']

    def test_init_cfg_anywhere_in_the_model(self):
        pretrained = dict(type='Pretrained', checkpoint='swin.pth')
        cfg = dict(model=dict(backbone=dict(init_cfg=[pretrained])))
        assert self.keys(cfg) == ['model.backbone.init_cfg.0.checkpoint']
        pretrained['checkpoint'] = 'torchvision://resnet50'
        assert self.keys(cfg) == []


def test_the_report_says_what_where_and_how(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = dict(
        train_dataloader=dict(dataset=coco()),
        val_evaluator=dict(type='CocoMetric', ann_file='data/coco/annotations/val.json'),
    )
    found = find_missing(Config(cfg), train_args(), 'train')
    assert report_missing(found, 'x.py').splitlines() == [
        'nothing was started: 3 paths that x.py needs cannot be found.',
        '  train_dataloader.dataset (CocoDataset)',
        f'    ann_file         {tmp_path}/data/coco/annotations/train.json',
        f'    data_prefix.img  {tmp_path}/data/coco/train',
        '  val_evaluator (CocoMetric)',
        f'    ann_file         {tmp_path}/data/coco/annotations/val.json',
        f'Remedy: put the files there (relative paths start at {tmp_path})',
        '  COCO 2017 belongs under data/coco/: annotations/, train2017/, val2017/.',
        'or say where they are:',
        '  --cfg-options train_dataloader.dataset.data_root=DIR val_evaluator.ann_file=FILE',
    ]
