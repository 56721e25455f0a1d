"""Every missing path is found before anything is built, and said in one message."""

from argparse import Namespace

import pytest
from mmdet.models.language_models import bert as mmdet_bert
from mmengine.config import Config

from mmdet_dino_r1.checks.paths import needed_paths
from mmdet_dino_r1.checks.preflight import (
    CHECKS_OF_FIRST_PROCESS,
    explain_mistake,
    explain_texts,
    find_missing,
    report_missing,
)


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

    def find(self, bank, complete, stage='test', protocol='visual_g', **parts):
        hook = dict(type='PromptBankHook', protocol=protocol, strict=False, bank=bank)
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

    def test_a_list_of_exemplars_in_place_of_an_annotation_file(self, complete, tmp_path):
        bank = dict(data_root='nowhere/', ann_file='a.json', data_prefix=dict(img='train/'))
        bank['support'] = str(tmp_path / 'list.json')
        found = self.find(bank, complete)
        owner = 'default_hooks.prompt_bank.bank'
        images = (owner, 'data_prefix.img', 'nowhere/train/')
        assert found == [(owner, 'support', bank['support']), images]
        (tmp_path / 'list.json').touch()
        assert self.find(bank, complete) == [images]
        # without a split of its own the images are the training set's
        train = dict(train_dataloader=dict(dataset=coco('nowhere/')))
        found = self.find(dict(support='gone.json'), complete, **train)
        assert [item[1] for item in found] == ['support', 'data_prefix.img']
        assert found[1][2].startswith('nowhere/')

    @pytest.mark.parametrize('bank', [None, dict(shots=16)])
    def test_the_training_split_in_a_test(self, bank, complete):
        found = self.find(bank, complete, train_dataloader=dict(dataset=coco('nowhere')))
        assert [item[0] for item in found] == ['train_dataloader.dataset (CocoDataset)'] * 2

    def test_the_training_split_inside_a_wrapper(self, complete):
        wrapped = dict(type='RepeatDataset', times=2, dataset=coco('nowhere'))
        found = self.find(None, complete, train_dataloader=dict(dataset=wrapped))
        assert found[0] == (
            'train_dataloader.dataset.dataset (CocoDataset)',
            'ann_file',
            'nowhere/annotations/train.json',
        )

    def test_a_root_of_its_own_moves_the_training_split(self, complete):
        train = dict(dataset=coco('nowhere'))
        assert self.find(dict(data_root=complete), complete, train_dataloader=train) == []

    def test_boxes_of_the_test_images_need_no_split(self, complete):
        assert self.find(None, complete, protocol='visual_i') == []
        assert self.find(dict(ann_file='gone.json'), complete, protocol='visual_i') == []

    def test_a_custom_hook_is_found_too(self, complete):
        cfg = dict(
            test_dataloader=dict(dataset=coco(complete, 'val')),
            custom_hooks=[dict(type='OtherHook'), dict(type='PromptBankHook', bank='b.pt')],
        )
        found = missing(cfg, 'test', checkpoint='https://host/x.pth')
        assert found == [('custom_hooks.1 (PromptBankHook)', 'bank', 'b.pt')]

    def test_no_hook_needs_no_training_split(self, complete):
        cfg = dict(
            train_dataloader=dict(dataset=coco('nowhere')),
            test_dataloader=dict(dataset=coco(complete, 'val')),
        )
        assert missing(cfg, 'test', checkpoint='https://host/x.pth') == []


def member(root, **more):
    prompts = dict(ann_file='annotations/train.json', data_prefix=dict(img='train/'))
    return coco(str(root), 'val', prompts=prompts) | more


def group(datasets, hook=None, **more):
    """Config of a test of a ``DatasetGroup``, without training set."""
    dataset = dict(type='DatasetGroup', only=None, skip_missing=False, datasets=datasets)
    hook = dict(type='PromptBankHook') | (hook or {})
    return dict(
        test_dataloader=dict(dataset=dataset | more),
        test_evaluator=dict(
            type='DatasetGroupEvaluator', metrics=dict(type='CocoMetric', metric='bbox')
        ),
        default_hooks=dict(prompt_bank=hook),
    )


class TestDatasetGroup:
    """A member is one line, whatever it lacks."""

    owner = 'test_dataloader.dataset (DatasetGroup)'

    def find(self, cfg):
        args = Namespace(checkpoint='https://host/x.pth')
        return find_missing(Config(cfg), args, 'test')

    def keys(self, cfg):
        return [(item.owner, item.member, item.key) for item in self.find(cfg)]

    def test_all_are_there(self, complete):
        assert self.keys(group(dict(a=member(complete), b=member(complete), c=None))) == []

    def test_a_missing_one_with_the_split_of_its_prompts(self, complete):
        found = self.keys(group(dict(a=member(complete), b=member('nowhere'))))
        keys = ('ann_file', 'data_prefix.img', 'prompts.ann_file', 'prompts.data_prefix.img')
        assert found == [(self.owner, 'b', key) for key in keys]

    def test_prompts_have_the_members_root_or_their_own(self, complete):
        own = dict(data_root='refs', ann_file='a.json', data_prefix=dict(img=''))
        found = self.find(group(dict(a=member(complete, prompts=own))))
        assert [item.path for item in found] == ['refs/a.json', 'refs/']
        absolute = dict(ann_file='/gone/a.json', data_prefix=dict(img='train/'))
        found = self.find(group(dict(a=member(complete, prompts=absolute))))
        assert [item.path for item in found] == ['/gone/a.json']

    def test_lists_of_exemplars_that_the_members_name(self, complete, tmp_path):
        hook = dict(bank=dict(support=str(tmp_path)))
        prompts = dict(member(complete)['prompts'], ann_file='gone.json', support='a.json')
        cfg = group(dict(a=member(complete, prompts=prompts)), hook)
        override = 'default_hooks.prompt_bank.bank.support=PATH'
        (found,) = self.find(cfg)
        assert found == ('default_hooks.prompt_bank.bank', 'a.json', found.path, override, '')
        assert found.path == str(tmp_path / 'a.json')
        (tmp_path / 'a.json').touch()
        assert self.find(cfg) == []
        # all members name one folder that is not there
        cfg = group({name: member(complete, prompts=prompts) for name in 'ab'}, hook)
        cfg['default_hooks']['prompt_bank']['bank']['support'] = 'gone'
        (found,) = self.find(cfg)
        assert found.path.endswith('/gone') and found.override == override

    @pytest.mark.parametrize(
        'hook',
        [
            dict(protocol='visual_i'),
            dict(bank='https://host/bank.safetensors'),
            dict(bank=dict(ann_file='https://host/a.json')),
        ],
    )
    def test_prompts_from_elsewhere_need_no_split_of_theirs(self, complete, hook):
        nowhere = dict(data_root='nowhere', ann_file='a.json', data_prefix=dict(img=''))
        assert self.keys(group(dict(a=member(complete, prompts=nowhere)), hook)) == []

    def test_only_some(self, complete):
        datasets = dict(a=member(complete), b=member('nowhere'))
        assert self.keys(group(datasets, only=['a'])) == []
        assert {name for _, name, _ in self.keys(group(datasets, only=['b']))} == {'b'}

    def test_missing_ones_may_be_left_out_but_not_all(self, complete):
        datasets = dict(a=member(complete), b=member('nowhere'))
        assert self.keys(group(datasets, skip_missing=True)) == []
        datasets['a'] = member('elsewhere')
        found = self.keys(group(datasets, skip_missing=True))
        assert {name for _, name, _ in found} == {'a', 'b'}

    def test_what_is_not_left_out_must_be_whole(self, complete):
        """The annotation file alone decides what is left out."""
        images_gone = member(complete, data_prefix=dict(img='gone/'))
        found = self.keys(group(dict(a=images_gone), skip_missing=True))
        assert found == [(self.owner, 'a', 'data_prefix.img')]

    def test_the_report_has_one_line_for_each(self, complete, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        half = member(complete, data_prefix=dict(img='gone/'))
        half['prompts'] = dict(ann_file='gone.json')
        datasets = dict(
            here=member(complete), half=half, Aquarium=member('data/odinw/Aquarium'), x=member('x')
        )
        report = report_missing(self.find(group(datasets)), 'odinw.py').splitlines()
        assert report == [
            'nothing was started: 10 paths that odinw.py needs cannot be found.',
            '  test_dataloader.dataset (DatasetGroup)',
            f'    half      {tmp_path}: data_prefix.img, prompts.ann_file',
            f'    Aquarium  {tmp_path}/data/odinw/Aquarium',
            f'    x         {tmp_path}/x',
            f'Remedy: put the files there (relative paths start at {tmp_path})',
            '  ODinW belongs under data/odinw/, one folder per dataset.',
            'or leave them out of the mean, or name the ones to test:',
            '  --cfg-options test_dataloader.dataset.skip_missing=True',
            """  --cfg-options test_dataloader.dataset.only="['NAME','NAME']\"""",
        ]

    def test_where_all_are_missing_leaving_out_is_no_remedy(self):
        report = report_missing(self.find(group(dict(a=member('x'), b=member('y')))), 'odinw.py')
        assert 'skip_missing' not in report

    def test_members_without_prompts_take_the_training_set(self, complete):
        cfg = group(dict(a=member(complete, prompts=None)))
        cfg['train_dataloader'] = dict(dataset=coco('nowhere'))
        assert {owner for owner, *_ in self.keys(cfg)} == {'train_dataloader.dataset (CocoDataset)'}

    def test_a_validation_during_training(self, complete):
        cfg = group(dict(a=member('nowhere')))
        cfg['val_dataloader'] = cfg.pop('test_dataloader')
        found = find_missing(Config(cfg), train_args(), 'train')
        assert {item.owner for item in found} == {'val_dataloader.dataset (DatasetGroup)'}
        assert len(found) == 4


class TestMistakes:
    """What no file can put right."""

    def explain(self, cfg, stage='test', **args):
        args = dict(tta=False, checkpoint='https://host/x.pth') | args
        return explain_mistake(Config(cfg), Namespace(**args), stage)

    def single(self, complete, hook=None, **parts):
        hook = dict(type='PromptBankHook') | (hook or {})
        return (
            dict(
                train_dataloader=dict(dataset=coco(complete)),
                test_dataloader=dict(dataset=coco(complete, 'val')),
                default_hooks=dict(prompt_bank=hook),
            )
            | parts
        )

    def test_sizes_of_the_model_that_differ(self):
        model = dict(type='DINOR1', num_feature_levels=5, neck=dict(num_outs=4))
        message = self.explain(dict(model=model))
        assert '  feature levels: 5 in model.num_feature_levels; 4 in model.neck.num' in message
        assert self.explain(dict(model=dict(model, type='DINO'))) is None

    @pytest.mark.parametrize(
        ('given', 'said'),
        [
            (dict(data_prefix='images/'), "data_prefix='images/' is no dict(img=…). Write "
             "data_prefix=dict(img='images/')."),
            (dict(data_prefix=dict(img_path='photos/')), "Write data_prefix=dict(img='photos/')."),
            (dict(ann_file=['a.json', 'b.json']), "ann_file=['a.json', 'b.json'] is a list, and a "
             "dataset reads one file. Write dict(type='ConcatDataset', datasets=[dict(common, "
             "ann_file='a.json'), dict(common, ann_file='b.json')])"),
            (dict(metainfo=dict(CLASSES=('a',))), 'metainfo=dict(CLASSES=…) is read by nothing in '
             'mmdet 3. Write metainfo=dict(classes=…).'),
            (dict(metainfo=dict(classes=('a',), PALETTE=[(1, 2, 3)])), 'Write metainfo=dict('
             'palette=…).'),
            (dict(metainfo=dict(class_names=('a',))), 'Write metainfo=dict(classes=…).'),
        ],
    )  # fmt: skip
    def test_arguments_in_mmdet_2s_form(self, complete, given, said):
        wrong, bank = coco(complete) | given, dict(type='PromptBankHook', bank=given)
        wrapped = dict(type='ConcatDataset', datasets=[dict(type='RepeatDataset', dataset=wrong)])
        of_group = dict(type='DatasetGroup', skip_missing=True, datasets=dict(a=wrong))
        prompts = dict(coco(complete), prompts=given)
        key = 'test_dataloader.dataset'
        for dataset, place in (
            (wrong, f'{key} (CocoDataset)'),
            (wrapped, f'{key}.datasets.0.dataset (CocoDataset)'),
            (of_group, f'{key}.datasets.a (CocoDataset)'),
            (prompts, f'{key}.prompts'),
        ):
            found = self.explain(self.single(complete, test_dataloader=dict(dataset=dataset)))
            assert found.startswith(f'{place}: ') and said in found
        if 'metainfo' not in given:
            found = self.explain(self.single(complete, bank))
            assert found.startswith('default_hooks.prompt_bank.bank: ') and said in found

    def test_what_only_looks_like_mmdet_2(self, complete):
        for metainfo in (
            dict(classes=('a',), CLASSES=['a']),
            dict(classes=('a',), names=('b',)),
            dict(classes=(), CLASSES=None),
            dict(dataset_type='x', Classes_of_last_year=('a',)),
        ):
            test = dict(dataset=coco(complete, metainfo=metainfo))
            assert self.explain(self.single(complete, test_dataloader=test)) is None

    def test_none(self, complete):
        assert self.explain({}) is None
        assert self.explain(self.single(complete)) is None
        assert self.explain(group(dict(a=member(complete)), only=['a'])) is None
        assert self.explain(self.single(complete), stage='train') is None

    def test_names_that_the_group_has_not(self, complete):
        datasets = dict(Aquarium=member(complete), Raccoon=member(complete), gone=None)
        message = self.explain(group(datasets, only=['Raccoon', 'Aquarum', 'gone']))
        assert message == (
            'test_dataloader.dataset.only names datasets that the group has not: '
            "'Aquarum' (near: Aquarium), 'gone'. It has: Aquarium, Raccoon"
        )
        message = self.explain(group(datasets, only='Raccoon'))
        assert message.endswith("""must be a list: test_dataloader.dataset.only="['Raccoon']\"""")

    def test_no_split_for_the_exemplars(self, complete):
        cfg = self.single(complete, train_dataloader=None)
        message = self.explain(cfg)
        assert 'no train_dataloader' in message and 'bank=PATH' in message
        cfg['default_hooks']['prompt_bank']['bank'] = 'b.safetensors'
        assert self.explain(cfg) is None
        without = group(dict(a=member(complete), b=member(complete, prompts=None)))
        assert 'no train_dataloader' in self.explain(without)

    def test_a_folder_of_lists_that_nobody_names(self, complete, tmp_path):
        bank = dict(support=str(tmp_path))
        hook = dict(type='PromptBankHook', bank=bank)
        train = dict(train_dataloader=dict(dataset=coco(complete)))
        message = self.explain(self.single(complete, hook, **train))
        assert message.startswith(f'The lists of exemplars in {tmp_path} cannot be told apart')
        message = self.explain(group(dict(a=member(complete)), dict(bank=bank)))
        assert 'prompts=dict(support=FILE_NAME)' in message

    def test_a_training_set_of_several_is_no_split(self, complete):
        several = dict(type='ConcatDataset', datasets=[coco(complete)])
        message = self.explain(self.single(complete, train_dataloader=dict(dataset=several)))
        assert 'train_dataloader.dataset (ConcatDataset) and not a single dataset' in message

    @pytest.mark.parametrize(
        'datasets', [dict(a=coco('x')), [coco('x'), coco('y')]], ids=['group', 'concat']
    )
    def test_tta_of_several_datasets(self, datasets):
        message = self.explain(group(datasets), tta=True)
        assert message.startswith('--tta works with a single dataset')

    def test_tta_needs_a_ready_bank(self, complete):
        message = self.explain(self.single(complete), tta=True)
        assert message.startswith('--tta needs a ready prompt bank')
        assert message.endswith('add --cfg-options default_hooks.prompt_bank.bank=FILE')
        ready = self.single(complete, dict(bank='b.safetensors'))
        assert self.explain(ready, tta=True) is None

    def test_tta_with_boxes_of_the_test_images(self, complete):
        cfg = self.single(complete, dict(protocol='visual_i', bank='b.safetensors'))
        assert 'visual_i' in self.explain(cfg, tta=True)


@pytest.mark.parametrize(
    ('path', 'said'),
    [
        ('data/coco/annotations/lvis_v1_val.json', 'LVIS v1 annotations (lvisdataset.org)'),
        ('data/coco/annotations/instances_val2017.json', 'COCO 2017 belongs under data/coco/'),
        ('data/odinw/Raccoon/train.json', 'ODinW belongs under data/odinw/'),
        ('data/shapes/annotations/val.json', 'mim run mmdet_dino_r1 generate_shapes data/shapes'),
        ('data/shapes_hard/annotations/val.json', 'data/shapes_hard --difficulty hard'),
    ],
)
def test_where_to_get_what_is_missing(path, said, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # the checkout may have data of its own, from the demo
    cfg = dict(test_evaluator=dict(type='LVISBoxMetric', ann_file=path))
    found = find_missing(Config(cfg), Namespace(checkpoint='https://host/x.pth'), 'test')
    hints = report_missing(found, 'x.py').split('Remedy')[1].splitlines()[1:-2]
    assert len(hints) == 1 and said in hints[0]


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


@pytest.mark.parametrize('stage', ['train', 'test'])
def test_a_missing_bank_of_the_model(stage, tmp_path):
    cfg = Config(dict(model=dict(prompt_bank=f'{tmp_path}/bank.safetensors')))
    args = Namespace(resume=None, checkpoint=str(tmp_path))
    (needed,) = find_missing(cfg, args, stage)
    assert (needed.key, needed.path) == ('model.prompt_bank', cfg.model.prompt_bank)


def test_missing_text_embeddings_are_said_with_both_remedies():
    cfg = Config(dict(model=dict(text_alignment=dict(embeddings='data/coco/text_embeddings.st'))))
    (needed,) = find_missing(cfg, Namespace(resume=None), 'train')
    assert needed.key == 'model.text_alignment.embeddings'
    report = report_missing([needed], 'x.py')
    assert 'cache_text_embeddings CONFIG' in report
    assert report.endswith('--cfg-options model.text_alignment=None')


def test_text_embeddings_that_the_start_makes_are_not_missing(tmp_path):
    path = tmp_path / 'texts.safetensors'
    texts = dict(embeddings=str(path), bert='bert-base-uncased')
    cfg, args = Config(dict(model=dict(text_alignment=texts))), Namespace(resume=None)
    assert not find_missing(cfg, args, 'train')
    path.touch()  # then it is shown by check_data
    assert [item.path for item in needed_paths(cfg, args, 'train')] == [str(path)]


def test_text_embeddings_that_cannot_be_made_end_the_start(monkeypatch, tmp_path):
    monkeypatch.setattr(mmdet_bert, 'AutoTokenizer', None)
    path = tmp_path / 'texts.safetensors'
    texts = dict(embeddings=str(path), bert='bert-base-uncased')
    cfg = Config(dict(model=dict(text_alignment=texts)))
    assert explain_texts in CHECKS_OF_FIRST_PROCESS
    assert explain_texts(cfg, Namespace(), 'test') is None
    assert explain_texts(Config(dict(model=None)), Namespace(), 'train') is None
    message = explain_texts(cfg, Namespace(), 'train')
    assert f'There is no {path}' in message and "pip install 'transformers<" in message
    assert 'cache_text_embeddings CONFIG' in message
    assert message.endswith('--cfg-options model.text_alignment=None')
    path.touch()
    assert explain_texts(cfg, Namespace(), 'train') is None
