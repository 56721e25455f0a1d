"""Late prompting computes what PET-DINO's own modules do (numbers: see ``pet_dino_data.py``)."""

import json
from functools import cache

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_xyxy_to_cxcywh
from mmengine.config import ConfigDict
from pet_dino_data import PARITY, needs_pet_dino, small_state

from mmdet_dino_r1.structures import PromptBank, VisualPrompts
from mmdet_dino_r1.structures.prompt_instances import prompt_instances

pytestmark = needs_pet_dino
CLOSE = dict(rtol=0, atol=1e-4)  # prompts, memory, states


@cache
def numbers(name):
    with np.load(PARITY / f'{name}.npz') as file:
        return {key: torch.from_numpy(np.asarray(file[key])) for key in file.files}


def group(name, prefix):
    return {k[len(prefix) :]: v for k, v in numbers(name).items() if k.startswith(prefix)}


def ours(cfg: dict) -> ConfigDict:
    """A config of PET-DINO's model as one of ours."""
    cfg = ConfigDict(cfg)
    for key in ('language_model', 'visual_prompt_model', 'memory_bank'):
        del cfg[key]
    del cfg['encoder_first_then_visual_prompt_encoder'], cfg['visual_prompt_encoder']
    del cfg.decoder.layer_cfg['with_cross_attn_visual']
    del cfg.bbox_head.contrastive_cfg['independent_visual_bias']
    cfg.bbox_head.contrastive_cfg.pop('max_text_len')
    cfg.update(type='DINOR1', fusion=False, prompts_from='memory')
    cfg.prompt_encoder = dict(type='JointPromptEncoder', num_levels=cfg.num_feature_levels)
    cfg.bbox_head.update(type='DINOR1Head', loss_iou=dict(type='PromptGIoULoss', loss_weight=2.0))
    cfg.train_cfg.assigner.type = 'BatchedHungarianAssigner'
    for cost in cfg.train_cfg.assigner.match_costs:
        cost.type = dict(
            BinaryFocalLossCost='PromptFocalLossCost',
            BBoxL1Cost='PromptBBoxL1Cost',
            IoUCost='PromptGIoUCost',
        )[cost.type]
        cost.pop('iou_mode', None)
    cfg.test_cfg.pop('prompt_type')
    return cfg


@cache
def small_model():
    detector = MODELS.build(ours(json.loads((PARITY / 'model_config.json').read_text())))
    detector.load_state_dict(small_state())  # strictly, under PET-DINO's names
    return detector.eval()


@pytest.fixture
def model():
    return small_model()


def sample_of(found, k):
    """Sample and image as the data pipeline hands them over."""
    img_shape = tuple(found[f'img_shape_{k}'].tolist())
    ori_shape = tuple(found[f'ori_shape_{k}'].tolist())
    scale = img_shape[1] / ori_shape[1], img_shape[0] / ori_shape[0]
    sample = DetDataSample(
        metainfo=dict(img_shape=img_shape, ori_shape=ori_shape, scale_factor=scale)
    )
    return found[f'image_{k}'], sample


def run(model, images, samples, prompts=None):
    """What is compared, for each image, with the parts' own results."""
    data = model.data_preprocessor(dict(inputs=images, data_samples=samples), False)
    samples = data['data_samples']
    encoder_inputs, decoder_inputs = model.pre_transformer(
        model.extract_feat(data['inputs']), samples
    )
    image = model.encode_image(encoder_inputs)
    prompts = prompts or model.prompts_for(image, samples)
    outputs = model.run_transformer(image, decoder_inputs, prompts)
    selection = outputs.pop('selection')
    detections = model.bbox_head.predict(
        **outputs, prompts=prompts, batch_data_samples=samples, rescale=True
    )
    return [
        dict(
            memory=image['memory'][k],
            features=image['feat'][k],
            prompts=prompts.embeddings[k][prompts.valid[k]],
            selected=selection.indices[k],
            selected_logit=selection.logits[k].max(dim=-1).values,
            initial_boxes=selection.boxes_unact[k].sigmoid(),
            hidden_states=outputs['hidden_states'][:, k],
            det_boxes=detections[k].bboxes,
            det_scores=detections[k].scores,
            det_labels=detections[k].labels,
        )
        for k in range(len(samples))
    ]


def compare(found, expected):
    """Bars: prompts, memory, states 1e-4; choices equal; scores 1e-5; boxes 1e-2 pixels."""
    for name in ('selected', 'det_labels'):
        assert torch.equal(found[name], expected[name].long()), name
    for name in ('features', 'memory', 'prompts', 'hidden_states', 'initial_boxes'):
        if name in expected:
            torch.testing.assert_close(
                found[name], expected[name].float(), **CLOSE, msg=lambda m, n=name: f'{n}: {m}'
            )
    torch.testing.assert_close(
        found['det_scores'], expected['det_scores'].float(), rtol=0, atol=1e-5
    )
    torch.testing.assert_close(found['det_boxes'], expected['det_boxes'].float(), rtol=0, atol=1e-2)


def interactive(k):
    found = numbers('visual_i')
    image, sample = sample_of(found, k)
    sample.prompt_instances = prompt_instances(
        found[f'prompt_boxes_original_{k}'].float(),
        found[f'prompt_labels_{k}'].long(),
        sample.ori_shape,
        sample.img_shape,
    )
    return image, sample


@torch.no_grad()
@pytest.mark.parametrize('k', [0, 1])
def test_visual_i(model, k):
    image, sample = interactive(k)
    (found,) = run(model, [image], [sample])
    compare(found, group('visual_i', f'single_{k}/'))


@torch.no_grad()
@pytest.mark.parametrize('images', [(0,), (1,), (0, 1), (1, 0)])
def test_prompt_encoder_alone_and_in_a_batch(model, images):
    """In any order of boxes, and each class by itself, too: what it sees is its own."""
    found = numbers('visual_prompt_encoder')
    layout = dict(
        feat_mask=found['feat_mask'][list(images)],
        spatial_shapes=[tuple(shape) for shape in found['shapes'].tolist()],
        level_start_index=found['level_start_index'],
        valid_ratios=found['valid_ratios'][list(images)].float(),
    )
    boxes, image_index, box_sets, expected = [], [], [], []
    for place, k in enumerate(images):
        h, w = found['image_shapes'][k].tolist()
        corners = found[f'boxes_{k}'].float() / torch.tensor([w, h, w, h])
        boxes.append(bbox_xyxy_to_cxcywh(corners))
        image_index += [place] * len(corners)
        rows = torch.searchsorted(found[f'classes_{k}'], found[f'labels_{k}'])
        box_sets.append(rows + sum(map(len, expected)))
        expected.append(found[f'prompts_{k}'].float())
    boxes, box_sets, expected = map(torch.cat, (boxes, box_sets, expected))
    order = torch.randperm(len(boxes))
    prompts = model.prompt_encoder(
        found['feat'][list(images)].float(),
        **layout,
        image_index=torch.tensor(image_index)[order],
        boxes=boxes[order],
        box_sets=box_sets[order],
    )
    torch.testing.assert_close(prompts, expected, **CLOSE)
    for row, prompt in enumerate(expected):
        mine = box_sets == row
        alone = model.prompt_encoder(
            found['feat'][list(images)].float(),
            **layout,
            image_index=torch.tensor(image_index)[mine],
            boxes=boxes[mine],
            box_sets=torch.zeros(int(mine.sum()), dtype=torch.long),
        )
        torch.testing.assert_close(alone[0], prompt, **CLOSE)


@torch.no_grad()
def test_two_images_of_other_sizes_in_a_batch(model):
    """As each by itself; PET-DINO's published masks mix the images' classes up here."""
    images, samples = zip(*map(interactive, (0, 1)), strict=True)
    for k, found in enumerate(run(model, list(images), list(samples))):
        expected = group('visual_i', f'batch_{k}/')
        compare(found, expected)
        as_published = group('visual_i', f'batch_as_published_{k}/')['prompts']
        assert (found['prompts'] - as_published).abs().max() > 0.1


def support(i):
    found = numbers('visual_g')
    keys = ('image', 'boxes_original', 'labels', 'ori_shape')
    image, boxes, labels, ori_shape = (found[f'support_{i}/{key}'] for key in keys)
    _, sample = sample_of(
        {'image_0': image, 'img_shape_0': torch.tensor(image.shape[1:]), 'ori_shape_0': ori_shape},
        0,
    )
    sample.prompt_instances = prompt_instances(
        boxes.float(), labels.long(), sample.ori_shape, sample.img_shape
    )
    return image, sample


def encode(model, *indices):
    """{(support image, class): embedding}, image by image."""
    encoded = {}
    for i in indices:
        image, sample = support(i)
        embeddings, choice = model.encode_reference_images(
            dict(inputs=[image], data_samples=[sample])
        )
        of_image = zip(choice.labels.tolist(), embeddings, strict=True)
        encoded |= {(i, label): embedding for label, embedding in of_image}
    return encoded


def mean_bank(encoded):
    ids = sorted({class_id for _, class_id in encoded})
    rows = torch.tensor([ids.index(class_id) for _, class_id in encoded])
    names = [str(class_id) for class_id in ids]
    return PromptBank.from_exemplars(names, torch.stack(list(encoded.values())), rows)


def detect(model, image, sample, bank, **test_cfg):
    """Through ``predict``, as a test does."""
    model.set_prompt_bank(bank)
    before, model.test_cfg = model.test_cfg, ConfigDict(model.test_cfg, **test_cfg)
    model.bbox_head.test_cfg = model.test_cfg
    try:
        (result,) = model.test_step(dict(inputs=[image], data_samples=[sample]))
    finally:
        model.test_cfg = model.bbox_head.test_cfg = before
        model.set_prompt_bank(None)
    return result.pred_instances


@torch.no_grad()
def test_visual_g(model):
    encoded = encode(model, 0, 1, 2)
    expected = numbers('visual_g')
    assert len(encoded) == sum('/class_' in name for name in expected)
    for (i, class_id), embedding in encoded.items():
        name = f'support_{i}/class_{class_id}'
        torch.testing.assert_close(embedding, expected[name].float(), **CLOSE)
    bank = mean_bank(encoded)
    torch.testing.assert_close(bank.embeddings, expected['bank/embeddings'].float(), **CLOSE)
    for k in (0, 1):
        image, sample = sample_of(numbers('visual_i'), k)
        prompts = VisualPrompts.from_banks([bank], model.query_embedding.weight)
        (found,) = run(model, [image], [sample], prompts)
        compare(found, group('visual_g', f'single_{k}/'))


@torch.no_grad()
def test_a_bank_serves_images_of_two_sizes(model):
    bank = mean_bank(encode(model, 0, 1, 2))
    images, samples = zip(*(sample_of(numbers('visual_i'), k) for k in (0, 1)), strict=True)
    prompts = VisualPrompts.from_banks([bank] * 2, model.query_embedding.weight)
    for k, found in enumerate(run(model, list(images), list(samples), prompts)):
        compare(found, group('visual_g', f'batch_{k}/'))


@torch.no_grad()
def test_prompts_of_another_image(model):
    encoded = encode(model, 1)
    image, sample = sample_of(numbers('visual_i'), 0)
    prompts = VisualPrompts.from_banks([mean_bank(encoded)], model.query_embedding.weight)
    (found,) = run(model, [image], [sample], prompts)
    expected = group('visual_other_image', 'other_image/')
    found['det_labels'] = torch.tensor(sorted(label for _, label in encoded))[found['det_labels']]
    compare(found, expected)


@torch.no_grad()
def test_chunks_of_classes_and_all_at_once(model):
    expected = numbers('visual_g')
    embeddings = expected['many/embeddings'].float()
    bank = PromptBank(tuple(map(str, range(len(embeddings)))), embeddings)
    image, sample = sample_of(numbers('visual_i'), 0)
    calls = []
    watch = model.encoder.register_forward_hook(lambda *_: calls.append(1))
    for name, test_cfg in (
        ('at_once', {}),
        (
            'chunked',
            dict(chunk_size=int(expected['many/chunk_size']), max_per_chunk=50, max_per_img=150),
        ),
    ):
        calls.clear()
        found = detect(model, image, sample.clone(), bank, **test_cfg)
        assert len(calls) == 1  # the image is encoded once
        boxes, scores, labels = (
            expected[f'many/{name}/det_{what}'] for what in ('boxes', 'scores', 'labels')
        )
        order = scores.argsort(descending=True, stable=True)  # theirs go chunk by chunk
        assert torch.equal(found.labels, labels[order].long())
        torch.testing.assert_close(found.scores, scores[order].float(), rtol=0, atol=1e-5)
        torch.testing.assert_close(found.bboxes, boxes[order].float(), rtol=0, atol=1e-2)
    watch.remove()
