"""Banks of a joint prompt encoder: one exemplar per class and image, each of weight 1."""

import json

import cv2
import numpy as np
import pytest
import torch
from conftest import build_tiny
from mmdet.registry import DATASETS
from mmengine.dataset import pseudo_collate
from model_variants import JOINT
from torch import nn

from mmdet_dino_r1.engine.bank_builder import encode_prompt_bank
from mmdet_dino_r1.structures import BatchBoxes

PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(64, 64), keep_ratio=True),
    dict(type='PackDetInputs'),
]
CATS = {1: 3, 2: 1, 3: 2, 4: 1}  # boxes by image
DOGS = {3: 1, 4: 2}


@pytest.fixture
def exemplars(tmp_path):
    """Nine boxes and a tenth on four images, of which each has a grey of its own."""
    images, annotations = [], []
    for id_ in CATS:
        height = 40 if id_ % 2 else 30
        cv2.imwrite(str(tmp_path / f'{id_}.png'), np.full((height, 40, 3), 20 * id_, np.uint8))
        images.append(dict(id=id_, file_name=f'{id_}.png', width=40, height=height))
        for category, numbers in enumerate((CATS, DOGS), start=1):
            for number in range(numbers.get(id_, 0)):
                box = [2.0 + 8 * number, 2.0 * id_, 9.0 + category, 12.0]
                annotations.append(
                    dict(id=len(annotations) + 1, image_id=id_, category_id=category)
                    | dict(bbox=box, area=box[2] * box[3], iscrowd=0)
                )
    categories = [dict(id=1, name='cat'), dict(id=2, name='dog')]
    content = dict(images=images, annotations=annotations, categories=categories)
    (tmp_path / 'anns.json').write_text(json.dumps(content))
    return DATASETS.build(
        dict(
            type='ExemplarDataset',
            ann_file='anns.json',
            data_root=f'{tmp_path}/',
            pipeline=PIPELINE,
            shots=8,
        )
    )


class Greys(nn.Module):
    """Encodes an exemplar as (grey of its image, how many boxes it has)."""

    def __init__(self, joint):
        super().__init__()
        self.joint = joint

    def encode_reference_images(self, data):
        boxes = BatchBoxes.read(data['data_samples'], 'prompt_instances', self.joint)
        greys = torch.stack([image.float().mean() for image in data['inputs']])
        choice = boxes.chosen()
        sizes = torch.ones(len(choice)) if choice.box_sets is None else choice.box_sets.bincount()
        return torch.stack([greys[boxes.exemplars.image_index], sizes], 1), choice


def test_each_image_has_the_weight_1_whatever_its_number_of_boxes(exemplars):
    bank = encode_prompt_bank(Greys(joint=True), exemplars)
    # cats: the mean of 20, 40, 60, 80 and not (3 * 20 + 40 + 2 * 60 + 80) / 7
    assert bank.embeddings.tolist() == [[50, 7 / 4], [70, 3 / 2]]
    assert bank.counts == dict(cat=4, dog=2)
    told = {key: bank.provenance[key] for key in ('num_exemplars', 'num_boxes', 'fewest', 'most')}
    assert told == dict(num_exemplars=6, num_boxes=10, fewest=2, most=4)
    assert bank.provenance['counts'] == bank.counts


def test_all_boxes_stay_on_record(exemplars):
    record = encode_prompt_bank(Greys(joint=True), exemplars).exemplars
    assert len(record) == 6 and len(record.boxes) == 10
    found = {}
    for members, label, embedding in zip(
        record.members, record.set_labels.tolist(), record.embeddings.tolist(), strict=True
    ):
        (image_id,) = {record.image_ids[box] for box in members}
        assert embedding == [20 * image_id, len(members)]
        assert {record.file_names[box] for box in members} == {f'{image_id}.png'}
        assert {box[1] for box in record.boxes[members].tolist()} == {2 * image_id}
        found[label, image_id] = len(members)
    expected = {(0, id_): number for id_, number in CATS.items()}
    assert found == expected | {(1, id_): number for id_, number in DOGS.items()}


def test_means_only_still_count_exemplars(exemplars):
    bank = encode_prompt_bank(Greys(joint=True), exemplars, keep_exemplars=False)
    assert bank.exemplars.embeddings is None and bank.counts == dict(cat=4, dog=2)
    assert len(bank.exemplars.boxes) == 10


def test_otherwise_each_box_is_an_exemplar(exemplars):
    bank = encode_prompt_bank(Greys(joint=False), exemplars)
    assert bank.embeddings[0, 0].item() == pytest.approx((3 * 20 + 40 + 2 * 60 + 80) / 7)
    assert bank.exemplars.sets is None and bank.counts == dict(cat=7, dog=3)
    assert bank.provenance['num_exemplars'] == bank.provenance['num_boxes'] == 10


class TestRealModel:
    """With the tiny model of late prompting."""

    @pytest.fixture
    def model(self):
        return build_tiny(**JOINT).eval()

    def test_neither_batch_size_nor_neighbours_change_anything(self, model, exemplars):
        one, four = (encode_prompt_bank(model, exemplars, batch_size=size) for size in (1, 4))
        assert one.exemplars.members == four.exemplars.members
        assert one.counts == four.counts == dict(cat=4, dog=2)
        for bank_of_one, bank_of_four in ((one, four), (one.exemplars, four.exemplars)):
            torch.testing.assert_close(
                bank_of_one.embeddings, bank_of_four.embeddings, atol=1e-5, rtol=0
            )

    def test_an_exemplar_is_what_its_image_gives_alone(self, model, exemplars):
        bank = encode_prompt_bank(model, exemplars, batch_size=2)
        by_class = {0: [], 1: []}
        for index in range(len(exemplars)):
            for label, rows in by_class.items():
                data = exemplars.prepare_data(index)
                prompts = data['data_samples'].prompt_instances
                data['data_samples'].prompt_instances = prompts[prompts.labels == label]
                if len(data['data_samples'].prompt_instances):
                    embeddings, choice = model.encode_reference_images(pseudo_collate([data]))
                    assert choice.labels.tolist() == [label] and len(embeddings) == 1
                    rows.append(embeddings[0])
        for label, rows in by_class.items():
            mean = torch.stack(rows).mean(dim=0)
            torch.testing.assert_close(bank.embeddings[label], mean, atol=1e-5, rtol=0)

    def test_boxes_of_an_exemplar_see_one_another(self, model, exemplars):
        together = encode_prompt_bank(model, exemplars)
        model.prompt_encoder.joint = False
        alone = encode_prompt_bank(model, exemplars)
        assert alone.counts == dict(cat=7, dog=3)
        assert torch.equal(alone.exemplars.boxes, together.exemplars.boxes)
        for members, embedding in zip(
            together.exemplars.members, together.exemplars.embeddings, strict=True
        ):
            off = (embedding - alone.exemplars.embeddings[members].mean(dim=0)).abs().max()
            assert (off > 0.01) == (len(members) > 1)
