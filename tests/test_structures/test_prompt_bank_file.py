"""Banks as files: everything comes back, and nothing else is taken for a bank."""

import json
import pickle
import stat
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from mmdet_dino_r1.structures import (
    BankExemplars,
    PromptBank,
    load_prompt_bank,
    protocol_summary,
    save_prompt_bank,
)
from mmdet_dino_r1.structures.prompt_bank_file import BANK_FILE


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')


def make_bank(names=('cat', 'dog'), keep=True, weights='w1', dim=3, **provenance):
    """A bank with two exemplars per class."""
    generator = torch.Generator().manual_seed(len(names))
    number = 2 * len(names)
    embeddings = torch.randn(number, dim, generator=generator)
    labels = torch.arange(number) % len(names)
    record = BankExemplars(
        labels,
        torch.rand(number, 4, generator=generator),
        tuple(range(number)),
        tuple(f'{index}.jpg' for index in range(number)),
        embeddings if keep else None,
    )
    about = dict(weights=weights, shots=2) | provenance
    means = PromptBank.from_exemplars(names, embeddings, labels).embeddings
    return PromptBank(tuple(names), means, about, tuple(range(10, 10 + len(names))), record)


def joint_record(keep=True):
    """Of two classes: the first has three boxes on one image and one on another, mixed."""
    return BankExemplars(
        torch.tensor([0, 1, 0, 0, 0]),
        torch.arange(20.0).reshape(5, 4),
        (1, 1, 1, 2, 1),
        ('a.jpg', 'a.jpg', 'a.jpg', 'b.jpg', 'a.jpg'),
        torch.tensor([[1.0, 0], [0, 1], [3, 0]]) if keep else None,
        torch.tensor([0, 1, 0, 2, 0]),
    )


def described(path, **changes):
    """Write a bank's file by hand, its description changed."""
    content = dict(version=1, class_names=['cat'], class_ids=[], provenance={}) | changes
    content = {key: value for key, value in content.items() if value is not None}
    save_file(
        dict(embeddings=torch.ones(1, 2)), path, metadata=dict(prompt_bank=json.dumps(content))
    )
    return path


@pytest.mark.parametrize('keep', [True, False])
def test_everything_comes_back_bit_by_bit(tmp_path, keep):
    bank = make_bank(keep=keep, ann_file='a.json', counts={'cat': 2, 'dog': 2}, seed=None)
    loaded = load_prompt_bank(save_prompt_bank(bank, tmp_path / 'new' / 'bank.safetensors'))
    assert loaded.class_names == bank.class_names
    assert loaded.class_ids == (10, 11)
    assert loaded.provenance == bank.provenance
    assert torch.equal(loaded.embeddings, bank.embeddings)
    assert torch.equal(loaded.exemplars.labels, bank.exemplars.labels)
    assert torch.equal(loaded.exemplars.boxes, bank.exemplars.boxes)
    assert loaded.exemplars.image_ids == bank.exemplars.image_ids
    assert loaded.exemplars.file_names == bank.exemplars.file_names
    if keep:
        assert torch.equal(loaded.exemplars.embeddings, bank.exemplars.embeddings)
    else:
        assert loaded.exemplars.embeddings is None


@pytest.mark.parametrize('keep', [True, False])
def test_sets_of_boxes_come_back_in_a_file_that_earlier_packages_refuse(tmp_path, keep):
    record = joint_record(keep)
    bank = PromptBank(('cat', 'dog'), torch.eye(2), exemplars=record)
    path = save_prompt_bank(bank, tmp_path / 'b.safetensors')
    loaded = load_prompt_bank(path)
    assert loaded.exemplars.members == record.members == [[0, 2, 4], [1], [3]]
    assert loaded.counts == dict(cat=2, dog=1)
    assert torch.equal(loaded.exemplars.boxes, record.boxes)
    with pytest.raises(ValueError, match='format version 2, this package reads up to 1'):
        replace(BANK_FILE, version=1).read(path, lambda *_: None)


def test_a_bank_without_sets_is_the_file_it_was(tmp_path):
    path = save_prompt_bank(make_bank(), tmp_path / 'b.safetensors')
    replace(BANK_FILE, version=1).read(path, lambda *_: None)  # an earlier package reads it
    assert load_prompt_bank(path).exemplars.sets is None


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_the_precision_is_kept(tmp_path, dtype):
    bank = PromptBank(('cat',), torch.tensor([[1 / 3, 2 / 3]], dtype=dtype))
    loaded = load_prompt_bank(save_prompt_bank(bank, tmp_path / 'b'))
    assert loaded.embeddings.dtype == dtype and torch.equal(loaded.embeddings, bank.embeddings)
    assert loaded.exemplars is None and loaded.counts is None


def test_names_in_any_script(tmp_path):
    names = ('猫', 'Käfer 🐞', 'a "quoted"\nname', '')
    bank = PromptBank(names, torch.eye(4), dict(note='Größe'))
    assert load_prompt_bank(save_prompt_bank(bank, tmp_path / 'b')).class_names == names


def test_a_view_or_a_gradient_is_no_obstacle(tmp_path):
    bank = PromptBank(('a', 'b'), torch.randn(3, 2, requires_grad=True).T)
    loaded = load_prompt_bank(save_prompt_bank(bank, tmp_path / 'b'))
    assert torch.equal(loaded.embeddings, bank.embeddings.detach())


def test_a_file_is_replaced_whole_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / 'b.safetensors'
    save_prompt_bank(make_bank(), path)
    save_prompt_bank(make_bank(('owl',)), path)
    assert load_prompt_bank(path).class_names == ('owl',)
    assert list(tmp_path.iterdir()) == [path]


def test_others_may_read_it(tmp_path):
    other = tmp_path / 'other'
    other.touch()
    path = save_prompt_bank(make_bank(), tmp_path / 'b')
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(other.stat().st_mode)


def test_what_cannot_be_written_leaves_the_old_file(tmp_path):
    path = save_prompt_bank(make_bank(), tmp_path / 'b')
    with pytest.raises(TypeError):
        save_prompt_bank(make_bank(when=object()), path)
    assert load_prompt_bank(path).class_names == ('cat', 'dog')
    assert list(tmp_path.iterdir()) == [path]


class TestBadFiles:
    """Every bad file is refused by name, with a remedy."""

    def test_none(self, tmp_path):
        with pytest.raises(FileNotFoundError, match='build_prompt_bank CONFIG CHECKPOINT'):
            load_prompt_bank(tmp_path / 'gone.safetensors')
        with pytest.raises(FileNotFoundError, match='no prompt bank'):
            load_prompt_bank(tmp_path)  # a folder

    @pytest.mark.parametrize('share', [0, 0.01, 0.5, 0.99])
    def test_truncated(self, tmp_path, share):
        path = save_prompt_bank(make_bank(), tmp_path / 'b')
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(ValueError, match='b is not a prompt bank, or only part of one'):
            load_prompt_bank(path)

    @pytest.mark.parametrize('write', [pickle.dump, torch.save])
    def test_a_pickle_is_not_run(self, tmp_path, write):
        trap = tmp_path / 'trap'
        with open(tmp_path / 'b', 'wb') as file:
            write(Hostile(trap), file)
        with pytest.raises(ValueError, match='not a prompt bank'):
            load_prompt_bank(tmp_path / 'b')
        assert not trap.exists()

    @pytest.mark.parametrize('metadata', [None, dict(format='pt')])
    def test_safetensors_of_something_else(self, tmp_path, metadata):
        save_file(dict(weight=torch.ones(2)), tmp_path / 'b', metadata=metadata)
        with pytest.raises(ValueError, match='safetensors file but not a prompt bank'):
            load_prompt_bank(tmp_path / 'b')

    def test_a_later_version(self, tmp_path):
        with pytest.raises(ValueError, match='format version 3.*upgrade mmdet_dino_r1'):
            load_prompt_bank(described(tmp_path / 'b', version=3))

    @pytest.mark.parametrize('key', ['version', 'class_names', 'class_ids', 'provenance'])
    def test_a_part_is_missing(self, tmp_path, key):
        with pytest.raises(ValueError, match=f'lacks .{key}.'):
            load_prompt_bank(described(tmp_path / 'b', **{key: None}))

    def test_no_class(self, tmp_path):
        with pytest.raises(ValueError, match='broken prompt bank.*at least one class'):
            load_prompt_bank(described(tmp_path / 'b', class_names=[]))

    def test_more_names_than_embeddings(self, tmp_path):
        with pytest.raises(
            ValueError, match=r'bank of 2 classes needs as many embeddings, .* got \(1, '
        ):
            load_prompt_bank(described(tmp_path / 'b', class_names=['cat', 'dog']))

    def test_not_a_number(self, tmp_path):
        embeddings = torch.tensor([[1.0, 2], [float('nan'), 1], [float('inf'), 1]])
        with pytest.raises(ValueError, match="not finite numbers: 'dog', 'owl'"):
            PromptBank(('cat', 'dog', 'owl'), embeddings)
        content = dict(version=1, class_names=['cat'], class_ids=[], provenance={})
        save_file(
            dict(embeddings=torch.tensor([[float('nan')]])),
            tmp_path / 'b',
            metadata=dict(prompt_bank=json.dumps(content)),
        )
        with pytest.raises(ValueError, match="broken prompt bank.*not finite numbers: 'cat'"):
            load_prompt_bank(tmp_path / 'b')


class TestMerge:
    """Banks of different classes become one."""

    def test_by_hand(self):
        first, second = make_bank(seed=0), make_bank(('owl', 'ant', 'bee'), seed=1)
        merged = PromptBank.merge([first, second])
        assert merged.class_names == ('cat', 'dog', 'owl', 'ant', 'bee')
        assert torch.equal(merged.embeddings, torch.cat([first.embeddings, second.embeddings]))
        assert merged.class_ids == (10, 11, 10, 11, 12)
        assert merged.exemplars.labels.tolist() == [0, 1, 0, 1, 2, 3, 4, 2, 3, 4]
        assert merged.exemplars.image_ids == (0, 1, 2, 3, 0, 1, 2, 3, 4, 5)
        assert len(merged.exemplars.embeddings) == 10
        # what they share stands above, the rest with each
        assert {key: merged.provenance[key] for key in ('weights', 'shots')} == dict(
            weights='w1', shots=2
        )
        assert 'seed' not in merged.provenance
        assert [part['seed'] for part in merged.provenance['merged']] == [0, 1]
        assert merged.provenance['merged'][1]['classes'] == ['owl', 'ant', 'bee']

    def test_a_merged_bank_survives_the_file(self, tmp_path):
        merged = PromptBank.merge([make_bank(), make_bank(('owl',))])
        loaded = load_prompt_bank(save_prompt_bank(merged, tmp_path / 'b'))
        assert loaded.provenance == merged.provenance
        assert torch.equal(loaded.exemplars.labels, merged.exemplars.labels)

    def test_what_one_lacks_all_lack(self):
        merged = PromptBank.merge([make_bank(), make_bank(('owl',), keep=False)])
        assert merged.exemplars.embeddings is None and len(merged.exemplars) == 6
        bare = PromptBank(('owl',), torch.ones(1, 3), dict(weights='w1'))
        merged = PromptBank.merge([make_bank(), bare])
        assert merged.exemplars is None and merged.class_ids == ()

    def test_sets_of_boxes_are_counted_through(self, tmp_path):
        joint = PromptBank(('elk', 'emu'), torch.eye(2), exemplars=joint_record())
        single = PromptBank(
            ('owl',),
            torch.ones(1, 2),
            exemplars=BankExemplars(
                torch.zeros(2).long(), torch.ones(2, 4), (8, 9), ('c', 'd'), torch.ones(2, 2)
            ),
        )
        again = PromptBank(('ant', 'bee'), torch.eye(2), exemplars=joint_record())
        merged = PromptBank.merge([joint, single, again])
        record = load_prompt_bank(save_prompt_bank(merged, tmp_path / 'b')).exemplars
        assert record.sets.tolist() == [0, 1, 0, 2, 0, 3, 4, 5, 6, 5, 7, 5]
        assert record.set_labels.tolist() == [0, 1, 0, 2, 2, 3, 4, 3]
        assert merged.counts == dict(elk=2, emu=1, owl=2, ant=2, bee=1)
        assert record.embeddings[:, 0].tolist() == [1, 0, 3, 1, 1, 1, 0, 3]
        for set_, label in zip(record.members, record.set_labels.tolist(), strict=True):
            assert {int(record.labels[box]) for box in set_} == {label}

    @pytest.mark.parametrize(
        ('other', 'message'),
        [
            (make_bank(('dog', 'owl')), "1 classes are in more than one bank: 'dog'"),
            (make_bank(('owl',), dim=4), 'different widths .3, 4'),
            (make_bank(('owl',), weights='w2'), "different weights .'w1', 'w2'"),
            (make_bank(('owl',), weights=None), 'different weights'),
        ],
    )
    def test_what_does_not_go_together(self, other, message):
        with pytest.raises(ValueError, match=message):
            PromptBank.merge([make_bank(), other])

    def test_one_is_too_few(self):
        with pytest.raises(ValueError, match='at least two prompt banks, got 1'):
            PromptBank.merge([make_bank()])


class TestAlignment:
    """A bank meets the classes of a test set."""

    bank = PromptBank(
        ('cat', 'dog', 'owl'), torch.tensor([[1.0], [2], [3]]), class_ids=(10, 11, 12)
    )

    def test_all_are_there_in_another_order(self):
        aligned = self.bank.aligned_to(['owl', 'cat'])
        assert aligned.class_names == ('owl', 'cat') and aligned.class_ids == (12, 10)
        assert aligned.embeddings.tolist() == [[3], [1]]
        assert aligned.label_tensor.tolist() == [0, 1]

    def test_missing_ones_are_left_without_a_prompt(self):
        aligned = self.bank.aligned_to(['emu', 'owl', 'ant', 'cat'], skip_missing=True)
        assert aligned.class_names == ('owl', 'cat')
        assert aligned.embeddings.tolist() == [[3], [1]]
        assert aligned.labels == (1, 3)
        assert aligned.label_tensor.tolist() == [1, 3]

    def test_missing_ones_are_named_with_the_nearest(self):
        with pytest.raises(ValueError, match="lacks 1 of 2 classes: 'cats' .near: cat."):
            self.bank.aligned_to(['dog', 'cats'])

    def test_if_all_are_missing_skipping_does_not_help(self):
        with pytest.raises(ValueError, match='lacks 2 of 2 classes'):
            self.bank.aligned_to(['emu', 'ant'], skip_missing=True)

    def test_ten_are_named_and_the_rest_counted(self):
        with pytest.raises(ValueError, match='and 5 more'):
            self.bank.aligned_to([f'class {number}' for number in range(15)])

    def test_differences_in_words(self):
        assert self.bank.differences_from(['cat', 'dog', 'owl']) == []
        assert self.bank.differences_from(['dog', 'cat', 'owl']) == [
            'bank and dataset order their classes differently: matched by name'
        ]
        assert self.bank.differences_from(['cat', 'emu', 'owl']) == [
            "1 classes of the dataset have no prompt: 'emu'",
            "1 classes of the bank are not in the dataset and stay out: 'dog'",
        ]
        # what is missing on one side is no difference of order
        assert self.bank.differences_from(['cat', 'owl']) == [
            "1 classes of the bank are not in the dataset and stay out: 'dog'"
        ]

    def test_one_value_per_class(self):
        with pytest.raises(ValueError, match='one of class_ids per class, got 1'):
            PromptBank(('a', 'b'), torch.eye(2), class_ids=(1,))
        with pytest.raises(ValueError, match='one of labels per class, got 3'):
            PromptBank(('a', 'b'), torch.eye(2), labels=(1, 2, 3))


def test_counts_by_name():
    record = BankExemplars(torch.tensor([2, 0, 2]), torch.zeros(3, 4), (1, 2, 3), ('x',) * 3)
    bank = PromptBank(('a', 'b', 'c'), torch.eye(3)).with_exemplars(record)
    assert bank.counts == dict(a=1, b=0, c=2)


def test_a_record_has_one_of_each_per_exemplar():
    with pytest.raises(ValueError, match='unequal lengths'):
        BankExemplars(torch.zeros(2).long(), torch.zeros(2, 4), (1,), ('a', 'b'))


def test_boxes_that_were_encoded_together_are_one_exemplar():
    record = joint_record()
    assert len(record) == 3
    assert record.set_labels.tolist() == [0, 1, 0]
    assert record.summary(['cat', 'dog', 'owl']) == dict(
        fewest=0, most=2, counts=dict(cat=2, dog=1, owl=0), num_exemplars=3, num_boxes=5
    )
    single = make_bank().exemplars.summary(['cat', 'dog'])
    assert single['num_exemplars'] == single['num_boxes'] == 4


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(sets=torch.tensor([0, 1, 0, 2])), 'unequal lengths'),
        (dict(sets=torch.tensor([0, 1, 0, 3, 0])), 'Not each of the 3 exemplars'),
        (dict(sets=torch.tensor([0, 2, 0, 3, 0]), embeddings=None), 'Not each of the 3'),
        (dict(embeddings=torch.ones(4, 2)), 'Not each of the 4 exemplars .* has a box'),
        (dict(labels=torch.tensor([0, 1, 1, 0, 0])), 'boxes of two classes or images'),
        (dict(image_ids=(1, 1, 3, 2, 1)), 'boxes of two classes or images'),
    ],
)
def test_sets_that_cannot_be(change, message):
    with pytest.raises(ValueError, match=message):
        replace(joint_record(), **change)


def test_the_protocol_in_a_few_words():
    about = dict(shots=16, fewest=3, seed=0, ann_file='train.json')
    assert protocol_summary(about) == (
        'N = 16 exemplars per class (fewest 3), seed 0, from train.json'
    )
    assert protocol_summary({}) == 'N = ? exemplars per class (fewest ?), seed ?, from ?'


def test_a_protocol_says_that_prompts_were_tuned():
    tuned = dict(tuning=dict(steps=40, tuned=['cat']))
    said = protocol_summary(tuned)
    assert said == 'N = ? exemplars per class (fewest ?), seed ?, from ?, tuned'
    assert protocol_summary(dict(merged=[{}, tuned])) == said
    assert protocol_summary(dict(tuned=True)) == said  # as a test records it
    assert protocol_summary(dict(tuning=dict(steps=0))) == protocol_summary({})
