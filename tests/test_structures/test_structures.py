"""Values that travel between stages."""

import pytest
import torch
from conftest import make_batch

from mmdet_dino_r1.structures import (
    BatchBoxes,
    ExemplarChoice,
    PromptBank,
    QuerySelection,
    VisualPrompts,
    load_prompt_bank,
    save_prompt_bank,
)


def test_bank_averages_per_class_by_hand():
    embeddings = torch.tensor([[1.0, 0], [3, 0], [0, 8]])
    bank = PromptBank.from_exemplars(['a', 'b'], embeddings, torch.tensor([0, 0, 1]))
    assert bank.embeddings.tolist() == [[2.0, 0], [0, 8]]


def test_bank_does_not_depend_on_the_order_of_exemplars():
    embeddings, labels = torch.randn(40, 16), torch.arange(40) % 3
    order = torch.randperm(40)
    names = ['a', 'b', 'c']
    first = PromptBank.from_exemplars(names, embeddings, labels)
    second = PromptBank.from_exemplars(names, embeddings[order], labels[order])
    assert torch.equal(first.embeddings, second.embeddings)


def test_bank_is_aligned_by_name():
    bank = PromptBank(('cat', 'dog', 'owl'), torch.tensor([[1.0], [2.0], [3.0]]))
    assert bank.aligned_to(['owl', 'cat']).embeddings.tolist() == [[3.0], [1.0]]
    with pytest.raises(ValueError, match="'dogs' .near: dog."):
        bank.aligned_to(['dogs'])


def test_rows_that_are_negatives(tmp_path):
    rows = torch.arange(5.0)[:, None]
    bank = PromptBank(tuple('acbxy'), rows, dict(shots=1))
    assert bank.negatives == {} and bank.aligned_to('ab').negative_labels == {}
    bank = bank.with_negatives({'x': ['a', 'b'], 'y': []})
    bank = load_prompt_bank(save_prompt_bank(bank, tmp_path / 'bank.safetensors'))
    assert bank.negatives == dict(x=['a', 'b'], y=[])
    assert bank.negative_labels == {3: [0, 2], 4: None}
    assert bank.differences_from('acb') == []
    # those of the classes that are asked for come along, and have the labels after theirs
    aligned = bank.aligned_to(('b', 'd', 'c'), skip_missing=True)
    assert aligned.class_names == ('b', 'c', 'x', 'y') and aligned.labels == (0, 2, 3, 4)
    assert aligned.negative_labels == {3: [0], 4: None}
    assert aligned.embeddings.flatten().tolist() == [2, 1, 3, 4]
    assert bank.aligned_to('c').class_names == ('c', 'y')
    # what is asked for is a class
    assert bank.aligned_to('ayx').negative_labels == {}
    # what was aligned once may be aligned again
    assert aligned.aligned_to('b').negative_labels == {1: [0], 2: None}
    other = PromptBank(('z', 'n'), rows[:2]).with_negatives(dict(n=['z']))
    joined = PromptBank.merge([bank, other])
    assert joined.negatives == dict(x=['a', 'b'], y=[], n=['z'])
    assert joined.aligned_to('z').negative_labels == {1: None, 2: [0]}
    with pytest.raises(ValueError, match="lacks 'w'"):
        bank.with_negatives(dict(x=['w']))
    with pytest.raises(ValueError, match='no class is left'):
        other.with_negatives(dict(z=[]))


def test_bank_refuses_what_cannot_be():
    with pytest.raises(ValueError, match='No exemplar for 1 classes: b'):
        PromptBank.from_exemplars(['a', 'b'], torch.ones(1, 2), torch.tensor([0]))
    with pytest.raises(ValueError, match="twice.*'a'"):
        PromptBank(('a', 'a'), torch.ones(2, 2))
    with pytest.raises(ValueError, match='as many embeddings'):
        PromptBank(('a',), torch.ones(2, 2))


def test_prompts_are_padded_to_the_longest():
    prompts = VisualPrompts.padded(
        [torch.ones(2, 4), torch.ones(1, 4)], [torch.tensor([5, 7]), torch.tensor([6])]
    )
    assert prompts.labels.tolist() == [[5, 7], [6, -1]]
    assert prompts.valid.tolist() == [[True, True], [True, False]]
    assert prompts.embeddings[1, 1].tolist() == [0] * 4


def test_text_dict_hides_padding():
    text = VisualPrompts.padded(
        [torch.ones(2, 4), torch.ones(0, 4)], [torch.tensor([5, 7]), torch.tensor([]).long()]
    ).as_text_dict()
    # an image without prompts keeps one token visible: attention over nothing is NaN
    assert text['text_token_mask'].tolist() == [[True, True], [True, False]]


def test_chunks_cover_all_prompts_in_order():
    prompts = VisualPrompts.shared(torch.randn(7, 4), torch.arange(7), batch_size=2)
    chunks = prompts.chunks(3)
    assert [len(chunk) for chunk in chunks] == [3, 3, 1]
    assert torch.equal(torch.cat([c.embeddings for c in chunks], 1), prompts.embeddings)
    assert prompts.chunks(0) == [prompts]


def test_boxes_of_a_class_are_averaged_image_by_image():
    prompts = VisualPrompts.averaged(
        torch.tensor([[1.0, 0], [2, 2], [4, 2], [5, 5], [7, 7]]),
        labels=torch.tensor([9, 4, 9, 4, 4]),
        image_index=torch.tensor([0, 0, 0, 2, 2]),
        batch_size=3,
    )
    assert prompts.labels.tolist() == [[4, 9], [-1, -1], [4, -1]]
    assert prompts.embeddings.tolist() == [[[2, 2], [2.5, 1]], [[0, 0]] * 2, [[6, 6], [0, 0]]]
    assert prompts.counts == [2, 0, 1]
    assert [chunk.counts for chunk in prompts.chunks(1)] == [[1, 0, 1], [1, 0, 0]]


def test_mismatched_prompts_are_refused():
    with pytest.raises(ValueError, match='do not belong together'):
        VisualPrompts(torch.zeros(1, 2, 4), torch.zeros(1, 3))


def test_objectness_is_the_best_prompt():
    logits = torch.tensor([[[1.0, 4.0], [float('-inf'), -2.0]]])
    selection = QuerySelection(torch.zeros(1, 2).long(), logits, torch.zeros(1, 2, 4))
    assert selection.objectness_logits.tolist() == [[4.0, -2.0]]


def test_placeholder_has_the_dtype_of_the_boxes():
    choice = ExemplarChoice.placeholder(torch.zeros(0, 4, dtype=torch.double))
    assert choice.local_boxes.dtype == torch.double and len(choice) == 1


# --- boxes of a batch -------------------------------------------------------------------


def test_boxes_are_normalised_by_the_size_of_their_image():
    _, samples = make_batch([([[4, 8, 12, 24]], [3]), ([], []), ([[0, 0, 20, 8]] * 2, [5, 1])])
    samples[2].set_metainfo(dict(img_shape=(32, 40, 3)))
    boxes = BatchBoxes.read(samples)
    assert boxes.img_shapes == [(64, 64), (64, 64), (32, 40)] and boxes.counts == [1, 0, 2]
    assert boxes.pixels[0].tolist() == [4, 8, 12, 24]
    assert boxes.corners.tolist() == [[1 / 16, 1 / 8, 3 / 16, 3 / 8], *[[0, 0, 0.5, 0.25]] * 2]
    assert boxes.boxes.tolist() == [[0.125, 0.25, 0.125, 0.25], *[[0.25, 0.125, 0.5, 0.25]] * 2]
    assert boxes.candidates.image_index.tolist() == [0, 2, 2]
    chosen = boxes.chosen(torch.tensor([2, 0]))
    assert chosen.labels.tolist() == [1, 3] and chosen.local_images.tolist() == [2, 0]
    assert torch.equal(chosen.local_boxes, boxes.boxes[[2, 0]])
    assert boxes.chosen(torch.arange(0)).is_placeholder and len(boxes.chosen()) == 3
    left = boxes.prompted(chosen)
    assert left.labels.tolist() == [3, 1] and left.counts == [1, 0, 1]
    assert torch.equal(left.boxes, boxes.boxes[[0, 2]])


# --- exemplars -> prompts -----------------------------------------------------------------


def choice_of(labels: list[int], **more) -> ExemplarChoice:
    count = len(labels)
    labels = torch.tensor(labels)
    return ExemplarChoice(torch.zeros(count).long(), torch.zeros(count, 4), labels, **more)


def test_one_exemplar_per_class_is_its_prompt_without_any_work():
    embeddings = torch.randn(3, 8)
    assert choice_of([2, 5, 7]).mean_over_class(embeddings) is embeddings


def test_prompt_is_the_mean_of_its_exemplars():
    choice = choice_of([5, 2, 5])
    assert choice.classes.tolist() == [2, 5] and len(choice) == 3
    embeddings = torch.tensor([[1.0, 0.0], [7.0, 8.0], [3.0, 4.0]], requires_grad=True)
    prompts = choice.mean_over_class(embeddings)
    assert prompts.tolist() == [[7, 8], [2, 2]]
    prompts[1, 0].backward()
    assert embeddings.grad.tolist() == [[0.5, 0], [0, 0], [0.5, 0]]


def test_prompts_of_each_image():
    """Two images: the first is served by exemplars 0 and 2, the second by 1, 2 and 3."""
    image_mask = torch.tensor([[True, False], [False, True], [True, True], [False, True]])
    choice = choice_of([4, 4, 6, 6], image_mask=image_mask)
    embeddings = torch.tensor([[1.0], [2.0], [3.0], [5.0]])
    assert choice.mean_over_class(embeddings).tolist() == [[[1], [3]], [[2], [4]]]


def test_mean_keeps_the_precision_under_autocast():
    embeddings = torch.tensor([[1.0], [1.0 + 2**-20]])
    with torch.autocast('cpu', torch.bfloat16):
        prompts = choice_of([4, 4]).mean_over_class(embeddings)
    assert prompts.tolist() == [[1 + 2**-21]]
