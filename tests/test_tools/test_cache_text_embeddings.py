"""Class names through BERT: what is cached is what a long caption gives."""

import json

import pytest
import torch
from mmdet.models.detectors.glip import create_positive_map
from mmengine.config import ConfigDict

from mmdet_dino_r1.structures import load_text_embeddings
from mmdet_dino_r1.tools import cache_text_embeddings as tool

WORDS = '[PAD] [UNK] [CLS] [SEP] [MASK] . ? _ ( ) cat dog bed hot ##dog fire hydrant mr crab food'
NAMES = ['cat', 'dog_bed', 'hotdog', 'fire hydrant', 'mr. dog', 'crab_(food)']


@pytest.fixture(scope='module')
def bert_folder(tmp_path_factory):
    """A BERT of two layers with random weights, as a local folder."""
    transformers = pytest.importorskip('transformers')
    if not transformers.__version__.startswith('4.'):
        pytest.skip("mmdet's BertModel needs transformers 4")
    folder = tmp_path_factory.mktemp('bert')
    vocabulary = folder / 'vocab.txt'
    vocabulary.write_text('\n'.join(WORDS.split()) + '\n')
    transformers.BertTokenizerFast(str(vocabulary)).save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(WORDS.split()),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        initializer_range=0.5,  # so that context and position are felt
    )
    transformers.BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


@pytest.fixture
def bert(bert_folder):
    return tool.build_bert(str(bert_folder))


def ann_file(path, names):
    categories = [dict(id=i + 1, name=name) for i, name in enumerate(names)]
    image = dict(id=1, file_name='1.jpg', height=8, width=8)
    path.write_text(json.dumps(dict(images=[image], annotations=[], categories=categories)))
    return str(path)


def json_dataset(path):
    return dict(type='CocoJsonDataset', ann_file=path, data_prefix=dict(img=''))


def long_caption(names):
    """The caption that Grounding DINO makes, and where each name stands in it."""
    caption, spans = '', []
    for name in names:
        cleaned = tool.as_grounding_dino_reads(name)
        spans.append([[len(caption), len(caption) + len(cleaned)]])
        caption += cleaned + '. '
    return caption, spans


# --- BERT -------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize('names', [NAMES, NAMES[::-1], NAMES[:1]])
def test_equals_the_mean_over_the_names_tokens_in_a_long_caption(bert, names):
    """Through mmdet's own forward and its own map of names to tokens."""
    caption, spans = long_caption(names)
    hidden = bert([caption])['embedded'][0]  # (tokens, text_dim)
    tokenized = bert.tokenizer([caption], return_tensors='pt')
    positive = create_positive_map(tokenized, spans, max_num_entities=hidden.shape[0]) > 0
    full_stop = tokenized['input_ids'][0] == bert.tokenizer.convert_tokens_to_ids('.')
    expected = torch.stack([hidden[row & ~full_stop].mean(dim=0) for row in positive])
    cached = tool.embed_class_names(bert, names)
    torch.testing.assert_close(cached, expected, rtol=1e-5, atol=1e-5)


def test_the_embedding_depends_on_neither_neighbours_nor_their_number(bert, monkeypatch):
    together = tool.embed_class_names(bert, NAMES)
    monkeypatch.setattr(tool, '_NAMES_AT_ONCE', 1)
    torch.testing.assert_close(tool.embed_class_names(bert, NAMES), together)


def test_words_of_one_name_see_one_another(bert):
    cat, dog, both = tool.embed_class_names(bert, ['hot', 'bed', 'hot bed'])
    assert (both - (cat + dog) / 2).abs().max() > 0.01


def test_underscores_case_and_parentheses_are_not_read(bert):
    rows = tool.embed_class_names(bert, ['dog_bed', 'Dog bed', 'crab_(food)', 'crab'])
    torch.testing.assert_close(rows[0], rows[1])
    torch.testing.assert_close(rows[2], rows[3])
    assert (rows[0] - rows[2]).abs().max() > 0.01


def test_a_name_without_words_is_refused(bert):
    with pytest.raises(ValueError, match=r"'\.' has no word"):
        tool.embed_class_names(bert, ['cat', '.'])


def test_weights_of_a_grounding_dino_checkpoint(bert, bert_folder, tmp_path):
    state = {f'language_model.{n}': v + 0.1 for n, v in bert.state_dict().items()}
    path = tmp_path / 'gdino.pth'
    torch.save(dict(state_dict=state | {'backbone.x': torch.zeros(1)}), path)
    tuned = tool.build_bert(str(bert_folder), str(path))
    for name, value in tuned.state_dict().items():
        assert torch.equal(value, state[f'language_model.{name}']), name
    state.popitem()
    torch.save(dict(state_dict=state), path)
    with pytest.raises(ValueError, match='no language model like --bert: 1 of'):
        tool.build_bert(str(bert_folder), str(path))


# --- names ------------------------------------------------------------------------------


def test_names_read_alike():
    names = ['crab_(food)', 'cat', 'crab_(animal)', 'Cat', 'dog']
    assert tool.names_read_alike(names) == [['crab_(food)', 'crab_(animal)'], ['cat', 'Cat']]


def test_parentheses_stay_where_nothing_else_is():
    assert tool.as_grounding_dino_reads('(food)') == '(food)'


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


def test_from_an_annotation_file(bert, bert_folder, tmp_path, capsys):
    out = tmp_path / 'texts.safetensors'
    ann = ann_file(tmp_path / 'ann.json', [*NAMES, 'crab'])
    assert tool.main(['--bert', str(bert_folder), '--ann', ann, '--out', str(out)]) == 0
    texts = load_text_embeddings(out)
    assert texts.class_names == (*NAMES, 'crab')
    assert texts.provenance['source'] == ann and texts.provenance['bert'] == str(bert_folder)
    torch.testing.assert_close(texts.rows_for(['cat']), tool.embed_class_names(bert, ['cat']))
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
    monkeypatch.setattr(tool.mmdet_bert, 'AutoTokenizer', None)
    assert tool.main(['x.py', '--out', str(tmp_path / 'x')]) == 2
    assert "pip install 'transformers<5'" in capsys.readouterr().err


def test_transformers_5_is_refused(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(tool.mmdet_bert, 'AutoTokenizer', object)
    monkeypatch.setattr(tool, 'version', lambda _: '5.1.0')
    assert tool.main(['x.py', '--out', str(tmp_path / 'x')]) == 2
    assert "needs transformers 4, this is 5.1.0: pip install 'transformers<5'" in (
        capsys.readouterr().err
    )


def test_a_missing_folder_is_said(bert_folder, tmp_path, capsys):
    command = ['--bert', str(tmp_path / 'none'), '--ann', 'x', '--out', str(tmp_path / 'x')]
    assert tool.main(command) == 2
    assert '--bert FOLDER' in capsys.readouterr().err
