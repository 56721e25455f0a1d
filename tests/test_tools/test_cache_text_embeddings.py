"""Class names of configs and files, through BERT into a file."""

import json

import pytest
import torch
from mmengine.config import ConfigDict
from test_engine.test_text_embedding import write_tiny_bert

from mmdet_dino_r1.engine import text_embedding
from mmdet_dino_r1.structures import load_text_embeddings
from mmdet_dino_r1.tools import cache_text_embeddings as tool

NAMES = ['cat', 'dog_bed', 'hotdog', 'fire hydrant', 'mr. dog', 'crab_(food)']


@pytest.fixture(scope='module')
def bert_folder(tmp_path_factory):
    return write_tiny_bert(tmp_path_factory.mktemp('bert'))


def ann_file(path, names):
    categories = [dict(id=i + 1, name=name) for i, name in enumerate(names)]
    image = dict(id=1, file_name='1.jpg', height=8, width=8)
    path.write_text(json.dumps(dict(images=[image], annotations=[], categories=categories)))
    return str(path)


def json_dataset(path):
    return dict(type='CocoJsonDataset', ann_file=path, data_prefix=dict(img=''))


# --- names ------------------------------------------------------------------------------


def names_of(dataset):
    return tool.class_names_of(ConfigDict(train_dataloader=dict(dataset=dataset)), 'train')


def test_names_of_mmdets_datasets_need_no_file():
    coco = ConfigDict(type='CocoDataset', ann_file='none.json', pipeline=[])
    assert names_of(coco)[:2] == ['person', 'bicycle']
    mine = dict(coco, metainfo=dict(classes=('a', 'b')))
    assert names_of(ConfigDict(type='RepeatDataset', times=2, dataset=mine)) == [
        'a',
        'b',
    ]


def test_names_of_json_files_and_of_several_datasets(tmp_path):
    def member(name, classes):
        return json_dataset(ann_file(tmp_path / name, classes))

    first, second = member('1.json', ['cat', 'dog']), member('2.json', ['cow', 'cat'])
    assert names_of(ConfigDict(first)) == ['cat', 'dog']
    both = ConfigDict(type='ConcatDataset', datasets=[first, second])
    assert names_of(both) == ['cat', 'dog', 'cow', 'cat']
    group = ConfigDict(type='DatasetGroup', datasets=dict(a=second, b=None, c=first))
    assert names_of(group) == ['cow', 'cat', 'cat', 'dog']


def test_a_dataset_without_names_is_refused(tmp_path):
    with pytest.raises(ValueError, match='no class names, since .*gone.json is not there; --ann'):
        names_of(ConfigDict(json_dataset(tmp_path / 'gone.json')))
    with pytest.raises(ValueError, match='no class names; --ann'):
        names_of(ConfigDict(type='BaseDetDataset', ann_file=''))


# --- command line -----------------------------------------------------------------------


def test_from_an_annotation_file(bert_folder, tmp_path, capsys):
    out = tmp_path / 'texts.safetensors'
    ann = ann_file(tmp_path / 'ann.json', [*NAMES, 'crab'])
    assert tool.main(['--bert', str(bert_folder), '--ann', ann, '--out', str(out)]) == 0
    texts = load_text_embeddings(out)
    assert texts.class_names == (*NAMES, 'crab')
    assert texts.provenance['source'] == ann and texts.provenance['bert'] == str(bert_folder)
    bert = tool.build_bert(str(bert_folder))
    one = text_embedding.embed_class_names(bert, ['cat'])
    torch.testing.assert_close(texts.rows_for(['cat']), one)
    printed = capsys.readouterr().out
    assert f'{out}: 7 class names from {ann}, width 16' in printed
    assert 'read alike, and so not told apart by their text: crab_(food), crab\n' in printed
    assert tool.main(['--bert', str(bert_folder), '--ann', ann, '--out', str(out)]) == 2
    assert '--overwrite replaces it' in capsys.readouterr().err


@pytest.mark.parametrize('split', ['train', 'test'])
def test_from_a_config(bert_folder, tmp_path, split):
    dataset = dict(
        type='ConcatDataset',
        datasets=[
            json_dataset(ann_file(tmp_path / f'{i}.json', names))
            for i, names in enumerate((['cat', 'bed'], ['bed', 'dog']))
        ],
    )
    config = tmp_path / 'mine.py'
    config.write_text(f'{split}_dataloader = dict(dataset={dataset!r})\n')
    out = tmp_path / 'texts'
    command = [str(config), '--bert', str(bert_folder), '--out', str(out), '--split', split]
    assert tool.main(command) == 0
    texts = load_text_embeddings(out)
    assert texts.class_names == ('cat', 'bed', 'dog')
    assert texts.provenance['source'] == f'mine ({split})'


@pytest.fixture
def no_bert(monkeypatch):
    monkeypatch.setattr(tool, 'build_bert', lambda *_: None)


def test_mistakes_are_said(no_bert, tmp_path, capsys):
    out = ['--out', str(tmp_path / 'x')]
    empty, broken = tmp_path / 'empty.py', tmp_path / 'broken.json'
    empty.write_text('')
    broken.write_text('{')
    for arguments, message in (
        ([], 'Give a config, or --ann FILE'),
        ([str(empty)], 'has no train_dataloader'),
        (['no_such_config'], 'ships no config'),
        (['--ann', str(broken)], 'is not COCO JSON'),
        (['--ann', str(tmp_path / 'none')], 'No such file'),
    ):
        assert tool.main([*arguments, *out]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / 'x').exists()


def test_without_transformers_the_extra_is_named(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(text_embedding.mmdet_bert, 'AutoTokenizer', None)
    assert tool.main(['x.py', '--out', str(tmp_path / 'x')]) == 2
    assert "pip install 'transformers<" in capsys.readouterr().err


def test_transformers_5_is_refused(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(text_embedding.mmdet_bert, 'AutoTokenizer', object)
    monkeypatch.setattr(text_embedding, 'version', lambda _: '5.1.0')
    assert tool.main(['x.py', '--out', str(tmp_path / 'x')]) == 2
    assert "needs transformers 4, this is 5.1.0: pip install 'transformers<" in (
        capsys.readouterr().err
    )


def test_a_missing_folder_is_said(bert_folder, tmp_path, capsys):
    command = ['--bert', str(tmp_path / 'none'), '--ann', 'x', '--out', str(tmp_path / 'x')]
    assert tool.main(command) == 2
    assert '--bert FOLDER' in capsys.readouterr().err
