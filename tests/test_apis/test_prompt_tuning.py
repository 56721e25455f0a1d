"""Tuned prompts by real models: what goes in, what comes out, and what stays as it is."""

import json

import numpy as np
import pytest
import torch
from conftest import CONFIGS, build_tiny, tiny_model_cfg
from mmengine.config import Config

from mmdet_dino_r1 import (
    PromptBank,
    build_prompt_bank,
    load_prompt_bank,
    save_prompt_bank,
    tune_prompt_bank,
)
from mmdet_dino_r1.apis import DINOR1Inferencer, Reference, tune_references
from mmdet_dino_r1.apis.reference_bank import ReferenceDataset
from mmdet_dino_r1.engine.bank_builder import weights_fingerprint
from mmdet_dino_r1.tools.inspect_prompt_bank import main as inspect
from mmdet_dino_r1.tools.merge_prompt_banks import main as merge

FEW = dict(steps=4, batch_size=2, folds=2, device='cpu')


@pytest.fixture
def model(tiny_shapes, tmp_path):
    """Config and checkpoint of the small model made tiny, with late prompts."""
    return make_model(tiny_shapes, tmp_path, fusion=False)


def make_model(shapes, folder, fusion):
    cfg = Config.fromfile(CONFIGS / 'dino_r1_r18_shapes.py')
    cfg.model = tiny_model_cfg(fusion=fusion)
    cfg.train_dataloader.dataset.data_root = f'{shapes}/'
    for step in cfg.test_dataloader.dataset.pipeline:
        if step['type'] == 'Resize':
            step.scale = (64, 64)
    torch.save(dict(state_dict=build_tiny(fusion=fusion).state_dict()), folder / 'tiny.pth')
    return cfg, folder / 'tiny.pth'


@pytest.fixture
def novel(tiny_shapes):
    """Six images of two classes."""
    return dict(ann=tiny_shapes / 'annotations/prompts_novel.json', img=tiny_shapes)


@pytest.fixture
def logged(monkeypatch):
    """What is printed to the log."""
    said = []
    place = 'mmdet_dino_r1.apis.prompt_tuning.print_log'
    monkeypatch.setattr(place, lambda text, **_: said.append(text))
    return said


@pytest.mark.parametrize('fusion', [True, False], ids=['fused', 'late'])
def test_new_classes_beside_those_of_a_bank(tiny_shapes, tmp_path, fusion, novel, logged):
    model, out = make_model(tiny_shapes, tmp_path, fusion), tmp_path / 'made/tuned.safetensors'
    base = build_prompt_bank(*model, shots=2, device='cpu')
    names = tuple(one['name'] for one in json.loads(novel['ann'].read_text())['categories'])
    calls = []
    bank = tune_prompt_bank(
        *model, out, **novel, bank=base, progress=lambda *call: calls.append(call), **FEW
    )
    assert bank.class_names == base.class_names + names
    assert torch.equal(bank.embeddings[:4], base.embeddings)
    about = bank.provenance
    assert about['weights'] == base.provenance['weights']
    assert (about['model'], about['checkpoint']) == ('dino_r1_r18_shapes', 'tiny.pth')
    tuning = about['tuning']
    assert tuning['most_steps'] == 4 and tuning['images'] == 6
    assert set(tuning['tuned']) | set(tuning['kept']) == set(bank.class_names)
    assert set(tuning['tuned']) <= set(names)
    assert tuning['start'] == base.provenance
    assert calls[-1][0] == calls[-1][1] and [done for done, _ in calls] == sorted(
        done for done, _ in calls
    )
    said = '0 of 2 classes are in the bank to begin with, 2 are new to it: '
    assert logged[0].startswith(said) and ('a new class changes' in logged[0]) == fusion
    loaded = load_prompt_bank(out)
    assert torch.equal(loaded.embeddings, bank.embeddings) and loaded.provenance == about
    assert loaded.class_ids == bank.class_ids
    # the record is of the tuned images alone
    assert bank.counts == dict.fromkeys(base.class_names, 0) | {
        name: bank.provenance['counts'][name] for name in names
    }
    assert inspect([str(out), '--out', str(tmp_path / 'seen')]) == 0
    assert (tmp_path / 'seen/contact_sheet.png').exists()


def test_tuned_twice_is_equal_in_every_byte_and_another_seed_is_not(model, tmp_path, novel):
    one, two = tmp_path / 'one', tmp_path / 'two'
    always = dict(FEW, folds=0, **novel)  # all steps are taken
    first = tune_prompt_bank(*model, one, **always)
    torch.manual_seed(7)
    tune_prompt_bank(*model, two, **always)
    assert one.read_bytes() == two.read_bytes()
    other = tune_prompt_bank(*model, seed=1, **always)
    assert not torch.equal(first.embeddings, other.embeddings)
    assert first.provenance['tuning']['steps'] == 4


def test_a_class_on_one_image_keeps_its_mean(model, novel):
    asked = dict(novel, shots=1, device='cpu')
    name = build_prompt_bank(*model, **asked).class_names[0]
    mean = build_prompt_bank(*model, **asked, classes=[name])
    bank = tune_prompt_bank(*model, **asked, classes=[name])
    assert torch.equal(bank.embeddings, mean.embeddings)
    assert bank.provenance['tuning']['steps'] == 0
    assert set(bank.provenance['tuning']['kept']) == {name}
    record, exemplars = bank.exemplars, mean.exemplars
    assert torch.equal(record.embeddings, exemplars.embeddings)
    assert torch.equal(record.boxes, exemplars.boxes)


def test_rows_of_a_bank_go_on_learning(model, novel, logged, tmp_path):
    few = FEW | dict(folds=0)
    first = tune_prompt_bank(*model, **novel, **few)
    name = first.class_names[1]
    path = save_prompt_bank(first, tmp_path / 'first.safetensors')
    again = tune_prompt_bank(*model, **novel, classes=[name], bank=path, **few)
    assert again.class_names == first.class_names
    same = (again.embeddings == first.embeddings).all(dim=1)
    assert same.tolist() == [True, False]
    assert logged == ['1 of 1 classes are in the bank to begin with.']


def test_a_name_that_is_nearly_one_of_the_bank_is_told(model, novel, logged, tmp_path):
    start = build_prompt_bank(*model, **novel, shots=1, device='cpu')
    name = start.class_names[0]
    coco = json.loads(novel['ann'].read_text())
    for category in coco['categories']:
        category['name'] += 's' * (category['name'] == name)
    (tmp_path / 'typo.json').write_text(json.dumps(coco))
    tune_prompt_bank(*model, ann=tmp_path / 'typo.json', img=novel['img'], bank=start, **FEW)
    assert logged == [
        f"1 of 2 classes are in the bank to begin with, 1 are new to it: '{name}s' (near: {name})."
    ]


def test_the_hook_may_name_the_annotations(model, novel):
    cfg, checkpoint = model
    with pytest.raises(ValueError, match=r'Tuning needs ann= and img= \(--ann and --img\)'):
        tune_prompt_bank(cfg, checkpoint, device='cpu')
    cfg.default_hooks.prompt_bank.bank = dict(
        data_root='', ann_file=str(novel['ann']), data_prefix=dict(img=f'{novel["img"]}/'), shots=1
    )
    bank = tune_prompt_bank(cfg, checkpoint, fewest_images=99, device='cpu')
    assert bank.provenance['num_images'] == 6  # the hook's shots are those of a bank


def test_mistakes_are_said_before_anything_is_tuned(model, novel, tiny_shapes, tmp_path):
    cfg, checkpoint = model
    others = build_prompt_bank(*model, **novel, shots=1, device='cpu')
    others.provenance['weights'] = 'others'
    narrow = PromptBank(('a',), torch.ones(1, 8))
    for error, message, given in (
        (FileNotFoundError, 'annotation file of the exemplars', dict(ann=tmp_path / 'none.json')),
        (FileNotFoundError, 'images with exemplars are missing', dict(img=tmp_path)),
        (ValueError, r'no categories named .cat.', dict(classes=['cat'])),
        (ValueError, 'shots must be at least 1', dict(shots=0)),
        (ValueError, 'made with the weights others', dict(bank=others)),
        (ValueError, 'made with the weights unknown', dict(bank=narrow)),
        (FileNotFoundError, 'gone.safetensors', dict(bank='gone.safetensors')),
    ):
        with pytest.raises(error, match=message):
            tune_prompt_bank(cfg, checkpoint, **(novel | given), device='cpu')
    with pytest.raises(FileNotFoundError, match='There is no checkpoint'):
        tune_prompt_bank(cfg, tmp_path / 'none.pth', **novel, device='cpu')
    with pytest.raises(ValueError, match='give one of these as well'):
        tune_prompt_bank(cfg, checkpoint, img=tmp_path)
    coco = json.loads(novel['ann'].read_text())
    (tmp_path / 'empty.json').write_text(json.dumps(coco | dict(annotations=[])))
    with pytest.raises(ValueError, match='no box that could serve as an exemplar'):
        tune_prompt_bank(cfg, checkpoint, ann=tmp_path / 'empty.json', img=tiny_shapes)


def picture(seed):
    return np.random.default_rng(seed).integers(0, 256, (64, 64, 3), np.uint8)


BOX, SECOND_BOX = [4, 4, 30, 34], [20, 10, 38, 44]


@pytest.fixture
def inferencer(model):
    return DINOR1Inferencer(*model, 'cpu', show_progress=False)


def test_images_in_memory_and_the_detector_stays_as_it_is(inferencer):
    references = [
        Reference(picture(0), [BOX, SECOND_BOX], ['cat', 'dog']),
        Reference(picture(1), [SECOND_BOX], 'cat'),
        Reference(picture(2), [BOX], 'dog'),
        Reference(picture(3), [BOX], 'cat'),
    ]
    in_force = inferencer.set_prompts(references[:1])
    detector = inferencer.model
    detector.backbone.conv1.weight.requires_grad_(False)
    before = weights_fingerprint(detector), [p.requires_grad for p in detector.parameters()]
    modes = [module.training for module in detector.modules()]
    found = inferencer(picture(4), score_thr=0)
    bank = tune_references(inferencer, references, bank=in_force, steps=2, folds=2)
    assert bank.class_names == ('cat', 'dog')
    assert bank.provenance['tuning']['images'] == 4
    assert before == (
        weights_fingerprint(detector),
        [p.requires_grad for p in detector.parameters()],
    )
    assert modes == [module.training for module in detector.modules()]
    assert all(parameter.grad is None for parameter in detector.parameters())
    assert inferencer.prompt_bank is in_force
    assert inferencer(picture(4), score_thr=0) == found
    assert inferencer.set_prompts(bank=bank) is bank and inferencer.classes == ('cat', 'dog')


@pytest.mark.parametrize(('joint', 'shots'), [(False, 3), (True, 2)])
def test_references_are_a_dataset_of_exemplars(inferencer, joint, shots):
    references = [
        Reference(picture(0)[:48], [BOX, SECOND_BOX, [0, 0, 9, 9]], ['cat', 'dog', 'cat']),
        Reference(picture(1), [[0, 0, 9, 9.5]], 'cat'),
    ]
    dataset = ReferenceDataset(inferencer.pipeline, references, 0.05, joint)
    assert len(dataset) == 2 and dataset.metainfo == dict(classes=('cat', 'dog'))
    assert dataset.get_data_info(0) == dict(
        img_id=0,
        file_name='array 0',
        height=48,
        width=64,
        exemplar_labels=[0, 1, 0],
        exemplar_boxes=[BOX, SECOND_BOX, [0, 0, 9, 9]],
    )
    assert (dataset.summary['shots'], dataset.summary['num_images']) == (shots, 2)
    sample = dataset[1]['data_samples']
    for drawn in (sample.gt_instances, sample.prompt_instances):
        assert (drawn.bboxes.tolist(), drawn.labels.tolist()) == ([[0, 0, 9, 9.5]], [0])
    sample.gt_instances.labels += 1  # everybody gets a sample of their own
    assert dataset[1]['data_samples'].gt_instances.labels.tolist() == [0]


def test_references_that_cannot_be_tuned_on(inferencer):
    with pytest.raises(ValueError, match='images with boxes'):
        tune_references(inferencer, [])
    with pytest.raises(ValueError, match=r'instead of the point \(9, 9\)'):
        tune_references(inferencer, [Reference(picture(0), [BOX, [9, 9]], 'cat')])
    with pytest.raises(TypeError, match='A reference is Reference'):
        tune_references(inferencer, [picture(0)])
    other = PromptBank(('cat',), torch.ones(1, 256), dict(weights='others'))
    with pytest.raises(ValueError, match='made with the weights others'):
        tune_references(inferencer, [Reference(picture(0), [BOX], 'cat')], bank=other)


def test_a_tuned_bank_joins_others(model, novel, tmp_path):
    base = save_prompt_bank(build_prompt_bank(*model, shots=1, device='cpu'), tmp_path / 'base')
    tune_prompt_bank(*model, tmp_path / 'tuned', **novel, **FEW)
    assert merge([str(base), str(tmp_path / 'tuned'), '--out', str(tmp_path / 'all')]) == 0
    assert len(load_prompt_bank(tmp_path / 'all')) == 6
