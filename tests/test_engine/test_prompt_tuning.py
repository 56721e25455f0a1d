"""Tuning the rows of a bank: the loss, the folds, the choice of steps, and what stays as it is."""

import pytest
import torch
from conftest import build_tiny, make_batch
from mmdet.models.task_modules.assigners import HungarianAssigner
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy, bbox_overlaps
from mmengine.structures import InstanceData
from model_variants import VARIANTS
from torch import nn

from mmdet_dino_r1.engine.prompt_tuning import (
    Queries,
    RowTuner,
    choose_look,
    deal,
    frozen,
    tune_bank,
)
from mmdet_dino_r1.engine.tuning_images import TuningImages
from mmdet_dino_r1.structures import PromptBank, VisualPrompts

BOXES = [
    ([[4, 4, 20, 20], [30, 30, 50, 60]], [0, 1]),
    ([[10, 8, 40, 30]], [0]),
    ([[5, 30, 25, 60], [40, 4, 60, 20], [30, 30, 44, 44]], [1, 1, 0]),
    ([], []),
    ([[20, 20, 50, 50]], [2]),
]
ASSIGNER = HungarianAssigner(
    [
        dict(type='BinaryFocalLossCost', weight=2.0),
        dict(type='BBoxL1Cost', weight=5.0, box_format='xywh'),
        dict(type='IoUCost', iou_mode='giou', weight=2.0),
    ]
)


class Drawn:
    """Images in memory with the interface of an ``ExemplarDataset``."""

    class_ids = (7, 8, 9)
    summary = dict(shots=16, seed=0)

    def __init__(self, boxes=BOXES, classes=('cat', 'dog', 'owl')):
        self.metainfo = dict(classes=classes)
        images, samples = make_batch(boxes)
        self.items = list(zip(images, samples, boxes, strict=True))

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        image, sample, _ = self.items[index]
        sample = sample.clone()
        sample.prompt_instances = InstanceData(**sample.gt_instances.to_dict())
        return dict(inputs=image, data_samples=sample)

    def get_data_info(self, index):
        boxes, labels = self.items[index][2]
        return dict(
            img_id=index, file_name=f'{index}.png', exemplar_labels=labels, exemplar_boxes=boxes
        )

    def check_images(self):
        pass


def build(**variant):
    model = build_tiny(**variant)
    # normalised already
    model.data_preprocessor.mean = torch.zeros(3, 1, 1)
    model.data_preprocessor.std = torch.ones(3, 1, 1)
    return model


def tuner_of(model, dataset=None, rows=None, **changed):
    dataset = dataset or Drawn()
    number = len(dataset.metainfo['classes'])
    options = dict(cache_gib=1.0, half_cache=False) | {
        key: changed.pop(key) for key in ('cache_gib', 'half_cache') if key in changed
    }
    images = TuningImages(model, dataset, torch.arange(number), **options)
    rows = torch.randn(number, 256) if rows is None else rows
    given = dict(
        learns=torch.ones(number, dtype=torch.bool),
        num_old=0,
        steps=4,
        lr=0.03,
        batch_size=2,
        seed=0,
    )
    return RowTuner(model, images, rows, **given | changed)


@pytest.mark.parametrize('variant', [{}, *VARIANTS.values()], ids=['published', *VARIANTS])
def test_the_loss_is_the_heads_without_denoising_by_mmdets_parts(variant):
    model = build(**variant).eval()
    tuner = tuner_of(model)
    head, prompts = model.bbox_head, VisualPrompts.shared(tuner.rows, torch.arange(3), 1)
    for index in range(len(BOXES)):
        image = tuner.images[index]
        outputs = model.run_transformer(image.image, image.decoder_inputs, prompts)
        selection = outputs.pop('selection')
        logits, boxes = head(**outputs)  # (num_layers, 1, num_queries, ...)
        stages = [*zip(logits[:, 0], boxes[:, 0], strict=True)]
        stages.append((selection.logits[0], selection.boxes_unact[0].sigmoid()))
        wanted = sum(loss_of_stage(head, *stage, image.ground_truth) for stage in stages)
        torch.testing.assert_close(
            tuner.loss(index, tuner.rows, Queries(tuner.rows)), wanted, rtol=1e-5, atol=1e-4
        )


def loss_of_stage(head, scores, boxes, wanted):
    """Match (num_queries, ...) scores and boxes with mmdet's assigner, and sum its losses."""
    positive = torch.zeros_like(scores)
    pixels, others = bbox_cxcywh_to_xyxy(boxes) * 64, scores.sum() * 0
    if len(wanted.labels):
        found = ASSIGNER.assign(
            InstanceData(scores=scores, bboxes=pixels),
            InstanceData(
                bboxes=wanted.pixels,
                labels=wanted.labels,
                positive_maps=nn.functional.one_hot(wanted.labels, 3).float(),
                text_token_mask=torch.ones(len(wanted.labels), 3, dtype=torch.bool),
            ),
            img_meta=dict(img_shape=(64, 64)),
        )
        query = (found.gt_inds > 0).nonzero()[:, 0]
        gt = found.gt_inds[query] - 1
        positive[query, wanted.labels[gt]] = 1
        overlap = bbox_overlaps(pixels[query], wanted.pixels[gt], mode='giou', is_aligned=True)
        others = 5 * (boxes[query] - wanted.boxes[gt]).abs().sum() + 2 * (1 - overlap).sum()
    p = scores.sigmoid()
    focal = torch.where(positive > 0, -0.25 * (1 - p) ** 2 * p.log(), -0.75 * p**2 * (1 - p).log())
    return head.loss_cls.loss_weight * focal.sum() + others


@pytest.mark.parametrize('name', ['late_neck', 'late_joint'])
def test_queries_selected_before_give_the_loss_and_gradient_of_their_logits_alone(name):
    model = build(**VARIANTS[name]).eval()
    kept, none = (tuner_of(model, rows=torch.ones(3, 256), cache_gib=gib) for gib in (1.0, 0.0))
    before = torch.randn(3, 256)
    rows = (before + 0.1).requires_grad_()
    grads = []
    for tuner in (kept, kept, none):  # encoded, kept, and without room
        queries = Queries(before)
        for _ in range(2):
            loss = tuner.loss(2, rows, queries)
        grads += torch.autograd.grad(loss, rows)
        assert [*queries.kept] == ([2] if tuner is kept else [])
    assert torch.equal(grads[0], grads[1]) and torch.equal(grads[0], grads[2])
    assert grads[0].abs().max() > 0


def test_how_much_fits_changes_nothing_and_half_of_it_rounds():
    model = build(fusion=False).eval()
    kept, none, half = (
        tuner_of(model, rows=torch.ones(3, 256), **options)
        for options in ({}, dict(cache_gib=0.0), dict(half_cache=True))
    )
    for index in range(len(BOXES)):
        losses = [tuner.loss(index, kept.rows, Queries(kept.rows)) for tuner in (kept, none)]
        assert losses[0] == losses[1]
        whole, rounded = (tuner.images[index].image['memory'] for tuner in (kept, half))
        assert torch.equal(rounded, whole.bfloat16().float())
    assert none.images.room == 0
    # 84 tokens of three levels and one more to ask the device of; shares and starts of the levels
    spent = [(2**30 - tuner.images.room) / 5 for tuner in (kept, half)]
    assert spent == [85 * 256 * 4 + 48, 85 * 256 * 2 + 48]


@pytest.mark.parametrize('variant', [{}, VARIANTS['late_joint']], ids=['published', 'late_joint'])
def test_tuning_lowers_the_loss_and_leaves_the_detector_alone(variant):
    model = build(**variant)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    model.backbone.eval()
    first = next(model.parameters()).requires_grad_(False)
    bank = tune_bank(model, Drawn(), steps=12, folds=0, fewest_images=1, provenance=dict(model='x'))
    assert model.training and not model.backbone.training
    assert not first.requires_grad and all(p.requires_grad for p in [*model.parameters()][1:])
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    about = bank.provenance['tuning']
    assert (about['steps'], about['most_steps'], about['images']) == (12, 12, 5)
    assert (about['tuned'], about['kept'], about['folds']) == (['cat', 'dog', 'owl'], [], 0)
    assert bank.provenance['model'] == 'x' and bank.class_ids == (7, 8, 9)
    with frozen(model):
        tuner = tuner_of(model)
        start = tuner.begin(range(5))
        means = tune_bank(model, Drawn(), fewest_images=9).embeddings
        before, after = (
            sum(tuner.loss(i, rows, Queries(rows)) for i in range(5))
            for rows in (means, bank.embeddings)
        )
    assert start is tuner.rows and after < before - 1


def test_a_bank_does_not_depend_on_what_fits():
    model = build(fusion=False)
    kept, none = (tune_bank(model, Drawn(), steps=8, folds=0, cache_gib=gib) for gib in (1.0, 0.0))
    assert torch.equal(kept.embeddings, none.embeddings)


def test_twice_with_a_seed_is_equal_to_the_byte_and_another_seed_is_not():
    model = build(fusion=False)
    banks = [
        tune_bank(model, Drawn(), steps=4, folds=2, seed=seed).embeddings for seed in (0, 0, 1)
    ]
    raw = [tune_bank(model, Drawn(), steps=4, folds=0, seed=seed).embeddings for seed in (0, 1)]
    assert torch.equal(banks[0], banks[1])
    assert not torch.equal(*raw)


def test_a_class_on_one_image_and_the_other_rows_of_a_bank_stay():
    model = build(fusion=False)
    means = tune_bank(model, Drawn(), fewest_images=9)
    assert means.provenance['tuning']['steps'] == 0 and means.provenance['tuning']['tuned'] == []
    start = PromptBank(('emu', 'dog'), torch.randn(2, 256), dict(weights='w'))
    start = start.with_negatives({'emu': ['dog']})
    bank = tune_bank(model, Drawn(), start, steps=3, folds=0)
    assert bank.class_names == ('emu', 'dog', 'cat', 'owl')
    about = bank.provenance['tuning']
    assert (about['tuned'], about['kept']) == (['dog', 'cat'], ['emu', 'owl'])
    assert about['start'] == start.provenance and bank.negatives == {'emu': ['dog']}
    assert torch.equal(bank.embeddings[0], start.embeddings[0])
    assert torch.equal(bank.embeddings[3], means.embeddings[2])  # owl: one image
    moved = (bank.embeddings[1:3] - torch.stack([start.embeddings[1], means.embeddings[0]])).abs()
    # Adam moves each entry by about the rate at first, and the rate falls to 0
    size = torch.cat([start.embeddings, means.embeddings[[0, 2]]]).square().mean().sqrt()
    assert 0 < moved.max() < 3 * 0.03 * size * 1.01
    # the record is of these images alone, by the rows of the new bank
    assert bank.exemplars.set_labels.tolist() == [2, 1, 2, 1, 1, 2, 3]


def test_rows_of_a_fold_begin_as_the_means_of_its_own_images():
    tuner = tuner_of(build(fusion=False).eval(), num_old=1)
    found = tuner.images.exemplars
    start = tuner.begin([1, 2])
    assert torch.equal(start[0], tuner.rows[0])  # an old row
    torch.testing.assert_close(start[1], found[2].embeddings[:2].mean(dim=0))
    assert torch.equal(start[2], tuner.rows[2])  # no owl on these images


def test_the_number_of_steps_by_hand():
    start = torch.tensor([4.0, 4.0, 4.0])
    better = torch.tensor([3.0, 2.0, 3.0])  # less by 1, 2, 1: sum 4, standard error 0.577 * sqrt(3)
    doubtful = torch.tensor([8.0, 0.0, 2.0])  # less by -4, 4, 2: sum 2, standard error 7.2
    assert choose_look(torch.stack([start, better])) == 1
    assert choose_look(torch.stack([start, doubtful])) == 0
    assert choose_look(torch.stack([start, start + 1])) == 0
    assert choose_look(torch.tensor([[4.0], [1.0]])) == 0  # of one image nothing can be told
    # near the best: more by 0.3, 0, 0.3, sum 0.6, standard error 0.3; or by 0.6, 0, -0.3, sum 0.3
    # and standard error 0.79
    worse, as_good = better + torch.tensor([0.3, 0, 0.3]), better + torch.tensor([0.6, 0, -0.3])
    assert choose_look(torch.stack([start, better, as_good, worse])) == 2


def test_folds_spread_each_class():
    shown = torch.zeros(9, 3, dtype=torch.bool)
    shown[:6, 0], shown[2:4, 1], shown[6:8, 2] = True, True, True
    parts = deal(shown, 2, seed=0)
    assert sorted(sum(parts, [])) == list(range(9))
    assert [shown[part].sum(dim=0).tolist() for part in parts] == [[3, 1, 1], [3, 1, 1]]
    assert sorted(map(len, parts)) == [4, 5]
    assert deal(shown, 2, seed=1) != parts and deal(shown, 1, seed=0) == []


def test_progress_counts_all_steps_and_may_stop_it():
    model, calls = build(fusion=False), []
    tune_bank(model, Drawn(), steps=3, folds=2, progress=lambda *done: calls.append(done))
    assert calls == [(step, 9) for step in range(1, 10)]

    def stop(done, every):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune_bank(model, Drawn(), steps=3, progress=stop)
    assert model.training and all(p.requires_grad for p in model.parameters())
