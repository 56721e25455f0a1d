"""Text embeddings: rows by name, and a file in which everything comes back."""

import json

import pytest
import torch
from safetensors.torch import save_file

from mmdet_dino_r1.structures import (
    PromptBank,
    TextEmbeddings,
    load_text_embeddings,
    save_prompt_bank,
    save_text_embeddings,
)

COMMAND = 'mim run mmdet_dino_r1 cache_text_embeddings CONFIG'


def make_texts(names=('cat', 'dog', 'hot dog')) -> TextEmbeddings:
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(len(names), 5, generator=generator)
    return TextEmbeddings(tuple(names), embeddings, dict(bert='tiny', checkpoint=None))


def test_rows_follow_the_names_asked_for():
    texts = make_texts()
    rows = texts.rows_for(['hot dog', 'cat'])
    assert torch.equal(rows, texts.embeddings[[2, 0]])
    assert texts.text_dim == 5 and len(texts) == 3


def test_missing_names_are_named_with_the_nearest_and_the_command():
    with pytest.raises(ValueError) as error:
        make_texts().rows_for(['cat', 'hot dogs', 'cart'])
    message = str(error.value)
    assert "lack 2 of 3 class names: 'hot dogs' (near: hot dog), 'cart' (near: cat)" in (message)
    assert COMMAND in message


def test_many_missing_names_are_counted():
    with pytest.raises(ValueError, match=r'lack 12 of 12 .* and 2 more\. Make them'):
        make_texts().rows_for([f'class {i}' for i in range(12)])


@pytest.mark.parametrize(
    ('names', 'embeddings', 'message'),
    [
        ((), torch.zeros(0, 2), 'at least one'),
        (('a',), torch.zeros(2, 2), r'\(1, dim\), got \(2, 2\)'),
        (('a',), torch.zeros(1), r'got \(1,\)'),
        (('a', 'a'), torch.zeros(2, 2), r"twice .*\['a'\]"),
        (('a', 'b'), torch.tensor([[0.0], [torch.nan]]), r"not finite .*'b'"),
    ],
)
def test_what_makes_no_sense_is_refused(names, embeddings, message):
    with pytest.raises(ValueError, match=message):
        TextEmbeddings(names, embeddings)


def test_everything_comes_back_bit_by_bit(tmp_path):
    texts = make_texts()
    path = save_text_embeddings(texts, tmp_path / 'new' / 'texts.safetensors')
    loaded = load_text_embeddings(path)
    assert loaded.class_names == texts.class_names
    assert loaded.provenance == texts.provenance
    assert torch.equal(loaded.embeddings, texts.embeddings)
    assert [p.name for p in path.parent.iterdir()] == ['texts.safetensors'], 'no half-written file'


def test_a_missing_file_names_the_command(tmp_path):
    with pytest.raises(FileNotFoundError, match=COMMAND):
        load_text_embeddings(tmp_path / 'none.safetensors')


def test_other_files_are_told_apart(tmp_path):
    path = tmp_path / 'file'
    path.write_bytes(b'nonsense')
    with pytest.raises(ValueError, match='is not a file of text embeddings, or only part'):
        load_text_embeddings(path)
    save_prompt_bank(PromptBank(('a',), torch.zeros(1, 2)), path)
    with pytest.raises(ValueError, match='safetensors file but not a file of text embeddings'):
        load_text_embeddings(path)


@pytest.mark.parametrize(
    ('described', 'message'),
    [
        (dict(version=2), 'format version 2.*upgrade'),
        (dict(version=1, provenance={}), "lacks 'class_names'"),
        (dict(version=1, provenance={}, class_names=['a', 'b']), r'got \(1, 2\)'),
    ],
)
def test_broken_files_say_why(tmp_path, described, message):
    path = tmp_path / 'file'
    metadata = dict(text_embeddings=json.dumps(described))
    save_file(dict(embeddings=torch.zeros(1, 2)), path, metadata=metadata)
    with pytest.raises(ValueError, match=message):
        load_text_embeddings(path)
