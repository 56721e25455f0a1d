"""Several test sets by name."""

import pytest
from mmdet.registry import DATASETS

PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path')),
]


@pytest.fixture
def group(tiny_shapes):
    """Builds a group of the base and the novel split, and one that is not there."""

    def member(ann_file, **more):
        return dict(
            type='CocoJsonDataset',
            data_root=f'{tiny_shapes}/',
            ann_file=ann_file,
            data_prefix=dict(img=''),
            pipeline=PIPELINE,
            test_mode=True,
            **more,
        )

    members = dict(
        base=member('annotations/val.json'),
        novel=member(
            'annotations/val_novel.json',
            prompts=dict(ann_file='annotations/prompts_novel.json', match='id'),
        ),
        away=member('annotations/nowhere.json'),
    )

    def build(**kwargs):
        return DATASETS.build(dict(type='DatasetGroup', datasets=members) | kwargs)

    return build


def test_samples_tell_their_dataset_and_classes_stay_apart(group):
    two = group(only=['base', 'novel'])
    assert len(two) == 8
    assert [two[i]['data_samples'].dataset_name for i in (0, 3, 4, 7)] == [
        *('base', 'base'),
        *('novel', 'novel'),
    ]
    base, novel = two.metainfo['datasets']
    assert (base['name'], base['size'], len(base['classes'])) == ('base', 4, 4)
    assert (novel['name'], novel['size'], len(novel['classes'])) == ('novel', 4, 2)
    assert novel['ann_file'].endswith('annotations/val_novel.json')
    assert not set(base['classes']) & set(novel['classes'])


def test_prompts_belong_to_the_member(group, tiny_shapes):
    sources = group(only=['base', 'novel']).prompt_sources
    assert sources['base'] is None
    assert sources['novel'] == dict(
        data_root=f'{tiny_shapes}/', ann_file='annotations/prompts_novel.json', match='id'
    )


def test_order_is_that_of_only(group):
    assert group(only=['novel', 'base']).names == ['novel', 'base']


def test_missing_sets_are_named_or_skipped_when_asked(group):
    with pytest.raises(FileNotFoundError, match=r'1 of 3 datasets are missing: away \(.*nowhere'):
        group()
    two = group(skip_missing=True)
    assert two.names == ['base', 'novel'] and two.metainfo['skipped'] == ['away']
    with pytest.raises(FileNotFoundError, match='1 of 1 datasets'):
        group(only=['away'], skip_missing=True)


def test_a_lazy_group_needs_its_files_as_late_as_possible(group):
    """mmdet's init_detector builds one, and reads no more than a palette."""
    lazy = group(lazy_init=True)
    assert lazy.metainfo == {}
    with pytest.raises(FileNotFoundError, match='nowhere.json'):
        lazy.full_init()
    lazy = group(lazy_init=True, only=['base', 'novel'])
    lazy.full_init()
    assert lazy.metainfo == group(only=['base', 'novel']).metainfo


def test_unknown_names_and_a_bare_string(group):
    with pytest.raises(KeyError, match=r"no dataset 'bass' \(near: base"):
        group(only=['bass'])
    with pytest.raises(TypeError, match="list of names, got 'base'"):
        group(only='base')


def test_a_member_can_be_dropped_by_none(group, tiny_shapes):
    members = dict(base=None, novel=None)
    with pytest.raises(FileNotFoundError):
        group(datasets=members | dict(away=dict(ann_file='nowhere.json')))


def test_common_arguments_give_way_to_a_members_own(group, tiny_shapes):
    common = dict(type='CocoJsonDataset', ann_file='annotations/val.json', pipeline=PIPELINE)
    own = dict(data_root=f'{tiny_shapes}/', data_prefix=dict(img=''))
    other = dict(own, ann_file='annotations/val_novel.json')
    two = group(common=common, datasets=dict(a=own, b=other))
    assert [meta['classes'] for meta in two.metainfo['datasets']] == [
        meta['classes'] for meta in group(only=['base', 'novel']).metainfo['datasets']
    ]
