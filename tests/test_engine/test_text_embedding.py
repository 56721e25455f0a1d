"""Class names through BERT: what is cached is what a long caption gives."""

import shutil
from pathlib import Path

import pytest
import torch
from mmdet.models.detectors.glip import create_positive_map

from mmdet_dino_r1.engine import text_embedding
from mmdet_dino_r1.utils.randomness import seeded_on_cpu

WORDS = '[PAD] [UNK] [CLS] [SEP] [MASK] . ? _ ( ) cat dog bed hot ##dog fire hydrant mr crab food'
NAMES = ['cat', 'dog_bed', 'hotdog', 'fire hydrant', 'mr. dog', 'crab_(food)']


def write_tiny_bert(folder: Path, more: str = '') -> Path:
    """A BERT of two layers, width 16, with random weights, which knows ``more`` words, too."""
    transformers = pytest.importorskip('transformers')
    if not transformers.__version__.startswith('4.'):
        pytest.skip("mmdet's BertModel needs transformers 4")
    words = list(dict.fromkeys(f'{WORDS} {more}'.split()))
    vocabulary = folder / 'vocab.txt'
    vocabulary.write_text('\n'.join(words) + '\n')
    transformers.BertTokenizerFast(str(vocabulary)).save_pretrained(folder)
    with seeded_on_cpu(0):
        config = transformers.BertConfig(
            vocab_size=len(words),
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            initializer_range=0.5,  # so that context and position are felt
        )
        transformers.BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


@pytest.fixture(scope='module')
def bert_folder(tmp_path_factory):
    return write_tiny_bert(tmp_path_factory.mktemp('bert'))


@pytest.fixture
def bert(bert_folder):
    return text_embedding.build_bert(str(bert_folder))


def long_caption(names):
    """The caption that Grounding DINO makes, and where each name stands in it."""
    caption, spans = '', []
    for name in names:
        cleaned = text_embedding.as_grounding_dino_reads(name)
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
    cached = text_embedding.embed_class_names(bert, names)
    torch.testing.assert_close(cached, expected, rtol=1e-5, atol=1e-5)


def test_the_embedding_depends_on_neither_neighbours_nor_their_number(bert, monkeypatch):
    together = text_embedding.embed_class_names(bert, NAMES)
    monkeypatch.setattr(text_embedding, '_NAMES_AT_ONCE', 1)
    torch.testing.assert_close(text_embedding.embed_class_names(bert, NAMES), together)


def test_words_of_one_name_see_one_another(bert):
    cat, dog, both = text_embedding.embed_class_names(bert, ['hot', 'bed', 'hot bed'])
    assert (both - (cat + dog) / 2).abs().max() > 0.01


def test_underscores_case_and_parentheses_are_not_read(bert):
    rows = text_embedding.embed_class_names(bert, ['dog_bed', 'Dog bed', 'crab_(food)', 'crab'])
    torch.testing.assert_close(rows[0], rows[1])
    torch.testing.assert_close(rows[2], rows[3])
    assert (rows[0] - rows[2]).abs().max() > 0.01


def test_a_name_without_words_is_refused(bert):
    with pytest.raises(ValueError, match=r"'\.' has no word"):
        text_embedding.embed_class_names(bert, ['cat', '.'])


def test_weights_of_a_grounding_dino_checkpoint(bert, bert_folder, tmp_path):
    state = {f'language_model.{n}': v + 0.1 for n, v in bert.state_dict().items()}
    path = tmp_path / 'gdino.pth'
    torch.save(dict(state_dict=state | {'backbone.x': torch.zeros(1)}), path)
    tuned = text_embedding.build_bert(str(bert_folder), str(path))
    for name, value in tuned.state_dict().items():
        assert torch.equal(value, state[f'language_model.{name}']), name
    state.popitem()
    torch.save(dict(state_dict=state), path)
    with pytest.raises(ValueError, match='no language model like --bert: 1 of'):
        text_embedding.build_bert(str(bert_folder), str(path))


def test_names_read_alike():
    names = ['crab_(food)', 'cat', 'crab_(animal)', 'Cat', 'dog']
    assert text_embedding.names_read_alike(names) == [
        ['crab_(food)', 'crab_(animal)'],
        ['cat', 'Cat'],
    ]


def test_parentheses_stay_where_nothing_else_is():
    assert text_embedding.as_grounding_dino_reads('(food)') == '(food)'


# --- where BERT is ----------------------------------------------------------------------


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """An empty cache of the hub, which cannot be reached; returns its folder."""
    monkeypatch.setattr('transformers.utils.TRANSFORMERS_CACHE', str(tmp_path))
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    return tmp_path


def test_a_model_in_the_hubs_cache_needs_no_network(bert_folder, no_network, monkeypatch):
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', False)
    asked = []
    monkeypatch.setattr('socket.getaddrinfo', lambda host, *_, **__: asked.append(host) or 1 / 0)
    model = no_network / 'models--mine--bert'
    (model / 'refs').mkdir(parents=True)
    (model / 'refs' / 'main').write_text('0' * 40)
    shutil.copytree(bert_folder, model / 'snapshots' / ('0' * 40))
    cached = text_embedding.build_bert('mine/bert')
    from_folder = text_embedding.build_bert(str(bert_folder))
    both = (text_embedding.embed_class_names(bert, NAMES) for bert in (cached, from_folder))
    assert torch.equal(*both) and not asked


@pytest.mark.parametrize('name', ['mine/bert', '/no/such/folder'])
def test_a_model_that_is_nowhere_is_said_with_both_remedies(bert_folder, no_network, name):
    with pytest.raises(FileNotFoundError, match='cannot be made here') as error:
        text_embedding.bert_for('data/texts', name)
    message = str(error.value)
    assert "There is no data/texts, the embeddings of the classes' names" in message
    assert f'{name!r} could be loaded neither from a folder, nor' in message
    assert 'model.text_alignment.bert=FOLDER' in message and 'cache_text_embeddings' in message


def test_a_folder_that_lacks_the_weights_is_said(bert_folder, tmp_path):
    folder = shutil.copytree(bert_folder, tmp_path / 'bert')
    (folder / 'model.safetensors').unlink()
    with pytest.raises(OSError, match='no file named .*\n.*holds config.json, vocab.txt and the'):
        text_embedding.build_bert(str(folder))
