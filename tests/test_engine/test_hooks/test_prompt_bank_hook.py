"""Banks and protocols, through mmengine's own Runner on the tiny set."""

import json
import logging
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from conftest import CONFIGS, tiny_model_cfg
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from model_variants import JOINT
from support_lists import write_support_list

from mmdet_dino_r1.config.exemplars import exemplar_config
from mmdet_dino_r1.engine.bank_builder import weights_fingerprint
from mmdet_dino_r1.engine.hooks import PromptBankHook
from mmdet_dino_r1.structures import (
    PromptBank,
    TextEmbeddings,
    load_prompt_bank,
    save_prompt_bank,
    save_text_embeddings,
)


@pytest.fixture
def printed():
    """Messages of mmengine's current logger, from here on."""
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())

    def listen():
        MMLogger.get_current_instance().addHandler(handler)
        return lines

    yield listen
    MMLogger.get_current_instance().removeHandler(handler)


@pytest.fixture
def cfg_for(tiny_shapes, tmp_path):
    """Builds a test config on the tiny set; ``hook`` is merged into the hook's config."""

    def build(ann_file='annotations/val.json', work_dir='work', batch_size=2, **hook) -> Config:
        cfg = Config.fromfile(CONFIGS / 'vis_gdino_r18_shapes.py')
        cfg.model = tiny_model_cfg()
        for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
            loader.dataset.data_root = f'{tiny_shapes}/'
            loader.dataset.pipeline = [
                dict(step, scale=(64, 64)) if step['type'] == 'Resize' else step
                for step in loader.dataset.pipeline
            ]
            loader.batch_size = batch_size
        for loader in (cfg.val_dataloader, cfg.test_dataloader):
            loader.dataset.ann_file = ann_file
        cfg.test_evaluator.ann_file = cfg.val_evaluator.ann_file = str(tiny_shapes / ann_file)
        cfg.default_hooks.prompt_bank = dict(type='PromptBankHook', bank=dict(shots=2)) | hook
        cfg.work_dir = str(tmp_path / work_dir)
        cfg.randomness = dict(seed=0)
        # mmengine keeps runners and visualisers by name; each run needs its own
        count = len(list(tmp_path.iterdir()))
        cfg.experiment_name = cfg.visualizer.name = f'{tmp_path.name}_{work_dir}_{count}'
        return cfg

    return build


def weighted(cfg: Config) -> Runner:
    """A runner whose model has fixed random weights."""
    runner = Runner.from_cfg(cfg)
    torch.manual_seed(3)
    runner.model.init_weights()
    return runner


def record_of(cfg: Config, name='test') -> dict:
    (path,) = Path(cfg.work_dir).glob(f'*/metrics/{name}.json')
    return json.loads(path.read_text())


NOVEL = dict(ann_file='annotations/prompts_novel.json', data_prefix=dict(img=''))


def test_record_states_the_protocol_beside_the_metrics(cfg_for, tiny_shapes):
    cfg = cfg_for(bank=dict(shots=3, seed=5))
    metrics = weighted(cfg).test()
    record = record_of(cfg)
    assert record['protocol'] == dict(
        name='visual_g',
        shots=3,
        fewest=3,
        seed=5,
        joint=False,
        tuned=False,
        source=f'{tiny_shapes}/annotations/train.json',
        without_prompt=[],
        detections_per_image=20,
        detections_per_chunk=0,
        chunk_size=0,
        nms=None,
    )
    assert record['metrics']['coco/bbox_mAP'] == metrics['coco/bbox_mAP']
    assert record['config'] == 'vis_gdino_r18_shapes'


def test_line_names_protocol_shots_seed_and_split(cfg_for, printed, tiny_shapes):
    runner = weighted(cfg_for(bank=dict(shots=3, seed=5)))
    lines = printed()
    runner.test()
    (line,) = [line for line in lines if line.startswith('Visual-G prompts')]
    assert 'N = 3 exemplars per class (fewest 3), seed 5' in line
    assert f'from {tiny_shapes}/annotations/train.json' in line and '4 classes' in line


def test_bank_is_kept_and_used_again_only_where_nothing_changed(cfg_for, printed):
    results, files = [], []
    for work_dir, hook in (
        ('work', {}),
        ('work', {}),
        ('work', dict(bank=dict(shots=2, seed=1))),
    ):
        cfg = cfg_for(work_dir=work_dir, **hook)
        cfg.experiment_name = cfg.visualizer.name = f'{cfg.experiment_name}_{len(results)}'
        runner = weighted(cfg)
        lines = printed()
        results.append((runner.test(), [line for line in lines if 'encoded before' in line]))
        lines.clear()
        files.append(set(Path(cfg.work_dir, 'prompt_banks').iterdir()))
    assert [len(again) for _, again in results] == [0, 1, 0]
    assert results[0][0] == results[1][0]
    assert [len(found) for found in files] == [1, 1, 2]


def test_validation_encodes_anew_with_other_weights(cfg_for):
    cfg = cfg_for()
    runner = weighted(cfg)
    runner.val()
    before = runner.model.prompt_bank
    with torch.no_grad():
        runner.model.prompt_encoder.content.weight += 1
    runner.val()
    after = runner.model.prompt_bank
    assert before.provenance['weights'] != after.provenance['weights']
    assert not torch.equal(before.embeddings, after.embeddings)
    assert not Path(cfg.work_dir, 'prompt_banks').exists()


def test_loaded_bank_gives_what_the_built_one_gives(cfg_for, tmp_path):
    built = weighted(cfg_for(work_dir='built'))
    expected = built.test()
    (kept,) = (tmp_path / 'built' / 'prompt_banks').iterdir()
    bank = load_prompt_bank(kept)
    bank.provenance['tuning'] = dict(steps=1)  # so it says
    kept = save_prompt_bank(bank, tmp_path / 'tuned.safetensors')
    cfg = cfg_for(work_dir='loaded', bank=str(kept), strict=True)
    loaded = weighted(cfg)
    assert loaded.test() == expected
    assert torch.equal(loaded.model.prompt_bank.embeddings, built.model.prompt_bank.embeddings)
    protocol = record_of(cfg)['protocol']
    assert protocol['shots'] == 2 and protocol['tuned']
    assert record_of(cfg)['weights'] == load_prompt_bank(kept).provenance['weights']


def test_bank_of_other_weights_warns_or_is_refused(cfg_for, tmp_path, printed):
    weighted(cfg_for(work_dir='built')).test()
    (kept,) = (tmp_path / 'built' / 'prompt_banks').iterdir()
    runner = weighted(cfg_for(work_dir='warned', bank=str(kept)))
    with torch.no_grad():
        runner.model.level_embed += 1
    made_by, now = load_prompt_bank(kept).provenance['weights'], weights_fingerprint(runner.model)
    lines = printed()
    runner.test()
    (line,) = [line for line in lines if 'was made with the weights' in line]
    assert made_by in line and now in line
    strict = weighted(cfg_for(work_dir='strict', bank=str(kept), strict=True))
    with torch.no_grad():
        strict.model.level_embed += 1
    with pytest.raises(ValueError, match=f'{made_by}, the model has {now}'):
        strict.test()


def test_bank_of_another_width_is_refused(cfg_for, tmp_path):
    path = save_prompt_bank(PromptBank(('a', 'b'), torch.ones(2, 8)), tmp_path / 'narrow')
    runner = weighted(cfg_for(bank=str(path)))
    with pytest.raises(ValueError, match='lacks 4 of 4 classes: .*near: a'):
        runner.test()
    names = runner.test_dataloader.dataset.metainfo['classes']
    save_prompt_bank(PromptBank(names, torch.ones(4, 8)), path)
    with pytest.raises(ValueError, match='width 8, the model needs 256'):
        runner.test()


def test_extra_and_reordered_classes_are_named_and_matched_by_name(cfg_for, tmp_path, printed):
    runner = weighted(cfg_for())
    expected = runner.test()
    bank = runner.model.prompt_bank
    order = [2, 0, 3, 1]
    other = PromptBank(
        (*(bank.class_names[i] for i in order), 'zebra'),
        torch.cat([bank.embeddings[order], torch.ones(1, 256)]),
        bank.provenance,
    )
    path = save_prompt_bank(other, tmp_path / 'other.safetensors')
    again = weighted(cfg_for(work_dir='again', bank=str(path)))
    lines = printed()
    assert again.test() == expected
    (line,) = [line for line in lines if line.startswith('Visual-G prompts')]
    assert "1 classes of the bank are not in the dataset and stay out: 'zebra'" in line
    assert 'matched by name' in line


def test_named_split_is_used(cfg_for, tiny_shapes):
    bank = dict(shots=1, data_root=f'{tiny_shapes}/', **NOVEL)
    runner = weighted(cfg_for('annotations/val_novel.json', bank=bank))
    runner.test()
    assert runner.model.prompt_bank.provenance['ann_file'].endswith('prompts_novel.json')


def jointly(cfg: Config) -> Config:
    cfg.model = tiny_model_cfg(**JOINT)
    return cfg


def boxes_by_image(bank: PromptBank) -> dict:
    """The boxes that a bank was encoded from, by class, then by file."""
    found = {}
    record = bank.exemplars
    for label, box, name in zip(
        record.labels.tolist(), record.boxes.tolist(), record.file_names, strict=True
    ):
        found.setdefault(bank.class_names[label], {}).setdefault(name, []).append(box)
    return found


def test_a_joint_encoder_gets_images_with_all_their_boxes(cfg_for, tiny_shapes, printed):
    cfg = jointly(cfg_for(bank=dict(shots=2, seed=5)))
    runner = weighted(cfg)
    lines = printed()
    runner.test()
    (line,) = [line for line in lines if line.startswith('Visual-G prompts')]
    assert 'N = 2 images with all boxes per class (fewest 2), seed 5' in line
    protocol = record_of(cfg)['protocol']
    assert protocol['joint'] and (protocol['shots'], protocol['fewest']) == (2, 2)

    (kept,) = Path(cfg.work_dir, 'prompt_banks').iterdir()
    coco = json.loads((tiny_shapes / 'annotations/train.json').read_text())
    files = {image['id']: image['file_name'] for image in coco['images']}
    names = {category['id']: category['name'] for category in coco['categories']}
    truth = {}
    for ann in coco['annotations']:
        key = names[ann['category_id']], files[ann['image_id']]
        truth[key] = truth.get(key, 0) + (min(ann['bbox'][2:]) >= 8)
    for name, images in boxes_by_image(load_prompt_bank(kept)).items():
        assert len(images) == 2
        assert {file: len(boxes) for file, boxes in images.items()} == {
            file: truth[name, file] for file in images
        }


def test_a_list_of_exemplars_is_taken_as_it_is(cfg_for, tiny_shapes, tmp_path):
    """In place of the annotation file alone: the images are where the training set's are."""
    path = tmp_path / 'lists' / 'a.json'
    lines = write_support_list(tiny_shapes / 'annotations/train.json', path, 2)
    cfg = jointly(cfg_for(bank=dict(support=str(path), shots=1)))
    runner = weighted(cfg)
    runner.test()
    about = record_of(cfg)['protocol']
    assert about['source'] == str(path) and about['seed'] == 'none (a given list)'
    assert (about['shots'], about['fewest'], about['joint']) == (2, 2, True)

    (kept,) = Path(cfg.work_dir, 'prompt_banks').iterdir()
    found, expected, alone = boxes_by_image(load_prompt_bank(kept)), {}, {}
    for entry in lines:
        instances = entry['detection']['instances']
        name = instances[0]['category']
        expected.setdefault(name, {})[entry['filename']] = [one['bbox'] for one in instances]
        # as PET-DINO takes them: line by line, then the mean
        path.write_text(json.dumps(entry))
        exemplars = DATASETS.build(exemplar_config(dict(support=str(path)), cfg, classes=[name]))
        embeddings, _ = runner.model.encode_reference_images(pseudo_collate([exemplars[0]]))
        alone.setdefault(name, []).append(embeddings)
    for images in (found, expected):
        for boxes in (boxes for of_class in images.values() for boxes in of_class.values()):
            boxes.sort()
    assert found == expected
    bank = runner.model.prompt_bank
    for name, embedding in zip(bank.class_names, bank.embeddings, strict=True):
        mean = torch.cat(alone[name]).mean(dim=0)
        torch.testing.assert_close(embedding, mean, atol=1e-5, rtol=1e-5)


def test_class_without_exemplars_is_named_or_left_without_prompt(cfg_for, tiny_shapes, tmp_path):
    """The training set has no novel class; of a mixed set half can be prompted."""
    with pytest.raises(ValueError, match='has no categories named'):
        weighted(cfg_for('annotations/val_novel.json')).test()

    coco = json.loads((tiny_shapes / 'annotations/train.json').read_text())
    lost = coco['categories'][1]['id']
    coco['annotations'] = [a for a in coco['annotations'] if a['category_id'] != lost]
    (tmp_path / 'train.json').write_text(json.dumps(coco))
    source = dict(ann_file=str(tmp_path / 'train.json'), data_root=f'{tiny_shapes}/')
    with pytest.raises(ValueError, match='no box that could serve as an exemplar for'):
        weighted(cfg_for(work_dir='a', bank=source)).test()
    cfg = cfg_for(work_dir='b', bank=dict(source, skip_missing=True))
    cfg.test_evaluator.outfile_prefix = str(tmp_path / 'results')
    runner = weighted(cfg)
    runner.test()
    found = {d['category_id'] for d in json.loads((tmp_path / 'results.bbox.json').read_text())}
    kept = [c['id'] for c in coco['categories'] if c['id'] != lost]
    assert found == set(kept)
    assert runner.model.prompt_bank.labels == (0, 2, 3)


@pytest.mark.parametrize('ready', [False, True])
def test_the_root_of_a_roboflow_export_needs_no_prompt(cfg_for, tiny_shapes, tmp_path, ready):
    """A category without a box: label 0 stays its own, and no figure changes."""
    plain = weighted(cfg_for(work_dir='plain'))
    metrics = plain.test()
    for split in ('train', 'val'):
        coco = json.loads((tiny_shapes / f'annotations/{split}.json').read_text())
        coco['categories'].insert(0, dict(id=0, name='things', supercategory='none'))
        (tmp_path / f'{split}.json').write_text(json.dumps(coco))
    bank = dict(ann_file=str(tmp_path / 'train.json'), data_root=f'{tiny_shapes}/', shots=2)
    if ready:
        save_prompt_bank(plain.model.prompt_bank, tmp_path / 'bank.safetensors')
        bank = str(tmp_path / 'bank.safetensors')
    cfg = cfg_for(str(tmp_path / 'val.json'), bank=bank)
    runner = weighted(cfg)
    assert runner.test() == metrics
    assert runner.model.prompt_bank.labels == (1, 2, 3, 4)
    assert record_of(cfg)['protocol']['without_prompt'] == ['things']


def test_ema_weights_are_the_ones_encoded_and_evaluated(cfg_for):
    cfg = cfg_for()
    cfg.custom_hooks = [dict(type='EMAHook', momentum=0.5)]
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=2, val_interval=2)
    cfg.param_scheduler = None
    runner = Runner.from_cfg(cfg)
    runner.train()
    used = runner.model.prompt_bank.provenance['weights']
    (hook,) = [hook for hook in runner.hooks if type(hook).__name__ == 'EMAHook']
    assert used != weights_fingerprint(runner.model)  # the trained weights, put back
    assert used == weights_fingerprint(hook.ema_model.module)


@pytest.mark.parametrize('protocol', ['visual_g', 'visual_i'])
def test_batch_size_and_order_change_nothing(cfg_for, protocol):
    outputs = []
    for index, (batch_size, reverse) in enumerate(((1, False), (3, False), (3, True))):
        cfg = cfg_for(work_dir=f'work{index}', batch_size=batch_size, protocol=protocol)
        if reverse:
            cfg.test_dataloader.sampler = dict(type='DefaultSampler', shuffle=True)
        cfg.default_hooks.prompt_bank.bank.batch_size = 2
        runner = weighted(cfg)
        seen = {}
        original = runner.model.predict

        def predict(*args, seen=seen, original=original, **kwargs):
            samples = original(*args, **kwargs)
            seen.update({s.img_id: deepcopy(s) for s in samples})
            return samples

        runner.model.predict = predict
        metrics = runner.test()
        outputs.append((metrics, seen))
    assert len(outputs[0][1]) == 4
    for metrics, seen in outputs[1:]:
        assert metrics == outputs[0][0]
        for img_id, sample in seen.items():
            expected = outputs[0][1][img_id].pred_instances
            found = sample.pred_instances
            assert torch.equal(found.labels, expected.labels)
            torch.testing.assert_close(found.scores, expected.scores, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(found.bboxes, expected.bboxes, atol=1e-2, rtol=1e-4)


def test_visual_i_prompts_only_the_classes_present(cfg_for, tiny_shapes, tmp_path):
    cfg = cfg_for(protocol='visual_i', bank=dict(seed=3))
    cfg.test_evaluator.outfile_prefix = str(tmp_path / 'results')
    weighted(cfg).test()
    coco = json.loads((tiny_shapes / 'annotations/val.json').read_text())
    present = {(a['image_id'], a['category_id']) for a in coco['annotations']}
    detections = json.loads((tmp_path / 'results.bbox.json').read_text())
    assert {(d['image_id'], d['category_id']) for d in detections} == present
    protocol = record_of(cfg)['protocol']
    assert (protocol['name'], protocol['shots'], protocol['seed']) == ('visual_i', 1, 3)


def test_plain_concat_dataset_gets_a_bank_per_member(cfg_for, tiny_shapes):
    cfg = cfg_for()
    one = deepcopy(cfg.test_dataloader.dataset)
    cfg.test_dataloader.dataset = dict(type='ConcatDataset', datasets=[one, deepcopy(one)])
    cfg.test_evaluator = dict(
        type='MultiDatasetsEvaluator',
        metrics=[cfg.test_evaluator, deepcopy(cfg.test_evaluator)],
        dataset_prefixes=['a', 'b'],
    )
    runner = weighted(cfg)
    metrics = runner.test()
    assert set(runner.model.prompt_banks) == {'dataset 0', 'dataset 1'}
    assert metrics['a/coco/bbox_mAP'] == metrics['b/coco/bbox_mAP']
    alone = weighted(cfg_for(work_dir='alone')).test()
    assert metrics['a/coco/bbox_mAP'] == alone['coco/bbox_mAP']


def test_config_without_any_split_says_so(cfg_for):
    cfg = cfg_for()
    cfg.train_dataloader = cfg.train_cfg = cfg.optim_wrapper = cfg.param_scheduler = None
    with pytest.raises(ValueError, match=r'names no split for the exemplars.*bank\.ann_file'):
        weighted(cfg).test()


def test_missing_images_are_counted_before_any_is_encoded(cfg_for, tiny_shapes):
    source = dict(
        data_root=f'{tiny_shapes}/',
        ann_file='annotations/train.json',
        data_prefix=dict(img='nowhere/'),
    )
    with pytest.raises(FileNotFoundError, match=r'images with exemplars are missing.*nowhere'):
        weighted(cfg_for(bank=source)).test()


def test_misspelt_key_and_protocol_are_named():
    with pytest.raises(ValueError, match="'shot'"):
        PromptBankHook(dict(shot=3))
    with pytest.raises(ValueError, match="visual_g.*got 'visual-g'"):
        PromptBankHook(protocol='visual-g')


def test_loaded_bank_may_lack_classes_when_asked(cfg_for, tmp_path):
    runner = weighted(cfg_for())
    runner.test()
    bank = runner.model.prompt_bank
    part = PromptBank(bank.class_names[1:], bank.embeddings[1:], bank.provenance)
    path = str(save_prompt_bank(part, tmp_path / 'part.safetensors'))
    with pytest.raises(ValueError, match='lacks 1 of 4 classes'):
        weighted(cfg_for(work_dir='a', bank=path)).test()
    cfg = cfg_for(work_dir='b', bank=dict(path=path, skip_missing=True))
    partial = weighted(cfg)
    partial.test()
    assert partial.model.prompt_bank.labels == (1, 2, 3)
    assert record_of(cfg)['protocol']['without_prompt'] == [bank.class_names[0]]


def test_prompts_from_class_names(cfg_for, tmp_path):
    cfg = cfg_for(protocol='text', bank=dict())
    with pytest.raises(ValueError, match='cache_text_embeddings'):
        weighted(cfg).test()
    names = weighted(cfg_for(work_dir='names')).test_dataloader.dataset.metainfo['classes']
    texts = TextEmbeddings((*names, 'zebra'), torch.randn(5, 16), {})
    path = str(save_text_embeddings(texts, tmp_path / 'texts.safetensors'))
    cfg = cfg_for(work_dir='text', protocol='text', bank=dict())
    cfg.model.text_alignment = dict(type='PromptTextContrastiveLoss', embeddings=path, text_dim=16)
    runner = weighted(cfg)
    runner.test()
    bank = runner.model.prompt_bank
    directions = torch.nn.functional.normalize(bank.embeddings, dim=1)
    projected = runner.model.text_feat_map(texts.embeddings[:4]).detach()
    expected = torch.nn.functional.normalize(projected, dim=1)
    torch.testing.assert_close(directions, expected, atol=1e-5, rtol=1e-5)
    protocol = record_of(cfg)['protocol']
    assert (protocol['name'], protocol['source']) == ('text', 'class names')
