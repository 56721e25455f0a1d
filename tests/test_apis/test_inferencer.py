"""Detection by visual prompts: the prompts, the images and what comes out."""

import json
import re
import shlex
from copy import deepcopy
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import cv2
import numpy as np
import pytest
import torch
from conftest import CONFIGS, build_tiny, tiny_model_cfg
from mmcv.transforms import Compose
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from model_variants import JOINT
from PIL import Image
from pycocotools.coco import COCO

from mmdet_dino_r1 import build_prompt_bank, load_prompt_bank, save_prompt_bank
from mmdet_dino_r1.apis import DINOR1Inferencer, Reference, image_input, to_coco
from mmdet_dino_r1.apis.detection_results import keep_best, spread_colours
from mmdet_dino_r1.apis.distractors import split_distractors
from mmdet_dino_r1.apis.image_input import (
    ImageReader,
    PreparedImage,
    UnreadableImage,
    list_images,
    same_size_batches,
)
from mmdet_dino_r1.apis.reference_prompts import exemplar_boxes
from mmdet_dino_r1.config.loading import image_pipeline
from mmdet_dino_r1.tools.detect import main

SIZES = [(64, 64), (48, 64), (64, 64), (64, 40), (48, 64), (64, 64)]  # height, width
BOX, SECOND_BOX = [4, 4, 30, 34], [20, 10, 38, 44]


def picture(seed, size=(64, 64)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


@pytest.fixture(scope='module')
def config():
    """The small model made tiny; its data sets do not exist."""
    cfg = Config.fromfile(CONFIGS / 'dino_r1_r18_shapes.py')
    cfg.model = tiny_model_cfg()
    cfg.train_dataloader.dataset.data_root = cfg.test_dataloader.dataset.data_root = '/gone/'
    for step in cfg.test_dataloader.dataset.pipeline:
        if step['type'] == 'Resize':
            step.scale = (64, 64)
    return cfg


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp('weights') / 'tiny.pth'
    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = build_tiny()
    for branch in model.bbox_head.cls_branches:  # scores that differ, not all at the prior
        torch.nn.init.zeros_(branch.bias)
    torch.save(dict(state_dict=model.state_dict()), path)
    return path


@pytest.fixture
def inferencer(config, checkpoint):
    return DINOR1Inferencer(config, checkpoint, 'cpu')


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / 'photos'
    root.mkdir()
    for index, size in enumerate(SIZES):
        cv2.imwrite(str(root / f'{index}.png'), picture(index, size))
    return root


def references():
    return [
        Reference(picture(100), [BOX, SECOND_BOX], ['cat', 'dog']),
        Reference(picture(101, (48, 64)), [BOX], 'cat'),
    ]


def assert_same(found, expected, atol=1e-5):
    assert found['labels'] == expected['labels']
    for key in ('scores', 'bboxes'):
        torch.testing.assert_close(
            torch.tensor(found[key]), torch.tensor(expected[key]), atol=atol, rtol=1e-4
        )


# --- the same as the model ---------------------------------------------------------------


def test_a_bank_gives_what_the_model_gives(inferencer, config, folder):
    bank = inferencer.set_prompts(references())
    (found,) = inferencer(folder / '1.png', score_thr=0)['predictions']
    model = deepcopy(inferencer.model)
    model.set_prompt_bank(bank)
    steps = [s for s in config.test_dataloader.dataset.pipeline if s['type'] != 'LoadAnnotations']
    data = Compose(steps)(dict(img_path=str(folder / '1.png'), img_id=0))
    with torch.no_grad():
        (sample,) = model.test_step(pseudo_collate([data]))
    expected = sample.pred_instances
    assert len(expected) == 20
    assert_same(found, {key: expected[key].tolist() for key in ('labels', 'scores', 'bboxes')})
    assert found['class_names'] == [('cat', 'dog')[label] for label in found['labels']]
    assert (found['height'], found['width']) == (48, 64)


def test_a_bank_set_on_the_model_itself_is_taken_over(inferencer, folder):
    """Of the same names, too: its labels may be others."""
    bank = inferencer.set_prompts(references())
    (expected,) = inferencer(folder / '1.png', score_thr=0)['predictions']
    with_a_gap = bank.aligned_to(('cat', 'owl', 'dog'), skip_missing=True)
    assert with_a_gap.class_names == bank.class_names
    inferencer.model.set_prompt_bank(with_a_gap)
    (found,) = inferencer(folder / '1.png', score_thr=0)['predictions']
    assert found['class_names'] == expected['class_names']
    assert_same(found, expected)


def test_references_equal_the_bank_built_from_the_same_boxes(
    config, checkpoint, inferencer, tiny_shapes, tmp_path
):
    ann = tiny_shapes / 'annotations/prompts_novel.json'
    built = build_prompt_bank(config, checkpoint, ann=ann, img=tiny_shapes, shots=3, device='cpu')
    by_image = {}
    for label, box, name in zip(
        built.exemplars.labels.tolist(),
        built.exemplars.boxes,
        built.exemplars.file_names,
        strict=True,
    ):
        by_image.setdefault(name, []).append((box, built.class_names[label]))
    made = inferencer.set_prompts(
        [
            Reference(tiny_shapes / name, *zip(*boxes, strict=True))
            for name, boxes in by_image.items()
        ]
    )
    assert made.provenance['weights'] == built.provenance['weights']
    assert made.counts == {name: 3 for name in made.class_names}
    aligned = made.aligned_to(built.class_names)
    torch.testing.assert_close(aligned.embeddings, built.embeddings, atol=1e-5, rtol=1e-5)
    loaded = load_prompt_bank(save_prompt_bank(made, tmp_path / 'bank.safetensors'))
    assert loaded.provenance == made.provenance and loaded.counts == made.counts
    assert torch.equal(loaded.exemplars.boxes, made.exemplars.boxes)


def test_a_box_on_the_image_equals_the_image_as_its_reference(inferencer):
    image = picture(7, (48, 64))
    inferencer.set_prompts([Reference(image, [BOX, SECOND_BOX], ['cat', 'dog'])])
    (by_reference,) = inferencer(image, score_thr=0)['predictions']
    results = inferencer(image, boxes=[BOX, SECOND_BOX], classes=['cat', 'dog'], score_thr=0)
    assert_same(results['predictions'][0], by_reference)


@pytest.fixture(scope='module')
def joint_inferencer(config, tmp_path_factory):
    """Late prompting: the boxes of a class on an image make one prompt together."""
    init_default_scope('mmdet')
    cfg = deepcopy(config)
    cfg.model = tiny_model_cfg(**JOINT)
    path = tmp_path_factory.mktemp('joint') / 'tiny.pth'
    torch.save(dict(state_dict=build_tiny(**JOINT).state_dict()), path)
    return DINOR1Inferencer(cfg, path, 'cpu')


def test_boxes_of_a_reference_are_one_exemplar_of_a_joint_prompt_encoder(joint_inferencer):
    first, second = picture(100), picture(101, (48, 64))
    third = [2, 2, 20, 30]
    mixed = Reference(first, [BOX, third, SECOND_BOX], ['cat', 'dog', 'cat'])
    apart = [Reference(first, [BOX, SECOND_BOX], 'cat'), Reference(second, [BOX], 'cat')]
    bank = joint_inferencer.set_prompts([mixed, apart[1]])
    assert bank.counts == dict(cat=2, dog=1)
    record, about = bank.exemplars, bank.provenance
    assert record.boxes.tolist() == [BOX, third, SECOND_BOX, BOX]
    assert record.members == [[0, 2], [1], [3]] and record.image_ids == (0, 0, 0, 1)
    told = {key: about[key] for key in ('shots', 'fewest', 'num_exemplars', 'num_boxes')}
    assert told == dict(shots=2, fewest=1, num_exemplars=3, num_boxes=4)
    # each image has the weight 1, whatever its number of boxes
    prompts = [joint_inferencer.set_prompts([reference]).embeddings[0] for reference in apart]
    torch.testing.assert_close(bank.embeddings[0], sum(prompts) / 2, atol=1e-5, rtol=0)
    torch.testing.assert_close(record.embeddings[0], prompts[0], atol=1e-5, rtol=0)


def test_boxes_on_the_image_equal_the_image_as_a_reference_of_joint_prompts(joint_inferencer):
    image, boxes, names = picture(7, (48, 64)), [BOX, [2, 2, 20, 30], SECOND_BOX], ['b', 'a', 'b']
    joint_inferencer.set_prompts([Reference(image, boxes, names)])
    (by_reference,) = joint_inferencer(image, score_thr=0)['predictions']
    found = joint_inferencer(image, boxes=boxes, classes=names, score_thr=0)['predictions'][0]
    assert set(found['class_names']) == {'a', 'b'}
    assert_same(found, by_reference)


# --- batches -----------------------------------------------------------------------------


@pytest.mark.parametrize('own', [False, True], ids=['bank', 'own prompts'])
def test_batch_size_and_neighbours_change_nothing(inferencer, folder, own):
    inferencer.set_prompts(references())
    images = sorted(folder.iterdir())
    prompts = [dict() for _ in images]
    if own:
        names = [['dog'], ['cat', 'dog'], ['owl'], ['dog'], ['cat', 'cat'], ['dog', 'owl']]
        prompts = [dict(boxes=[BOX, SECOND_BOX][: len(n)], classes=n) for n in names]
    alone = [
        inferencer(image, score_thr=0, **of_image)['predictions'][0]
        for image, of_image in zip(images, prompts, strict=True)
    ]
    together = {key: [of_image[key] for of_image in prompts] for key in prompts[0]}
    for batch_size in (1, 4):
        batched = inferencer(images, batch_size, score_thr=0, **together)['predictions']
        for index, (found, expected) in enumerate(zip(batched, alone, strict=True)):
            assert found['image'] == str(images[index])
            assert found['class_names'] == expected['class_names']
            assert_same(found | dict(labels=0), expected | dict(labels=0))


def test_batches_hold_one_size_and_none_waits_for_long():
    def prepared(index, size):
        return PreparedImage(index, '', size, dict(inputs=torch.empty(3, *size)), None)

    images = [prepared(index, size) for index, size in enumerate(SIZES)]
    batches = [[image.index for image in batch] for batch in same_size_batches(images, 2)]
    assert batches == [[0, 2], [1, 4], [3], [5]]
    taken = []

    def endless():
        for index in range(1000):
            taken.append(index)
            yield prepared(index, (index + 1, 1))

    assert len(next(same_size_batches(endless(), 2))) == 1
    assert len(taken) == 8
    with pytest.raises(ValueError, match='batch_size must be at least 1'):
        next(same_size_batches(images, 0))


# --- distractors and filters -------------------------------------------------------------


def test_distractors_remove_and_change_nothing_else(inferencer, folder):
    inferencer.model.bbox_head.test_cfg.max_per_img = 1000  # every pair
    further = [Reference(picture(seed), [SECOND_BOX], f'class {seed}') for seed in range(4)]
    everything = inferencer.set_prompts(references() + further)
    (plain,) = inferencer(folder / '0.png', score_thr=0)['predictions']
    distractors = ('class 0', 'class 1')
    inferencer.set_prompts(bank=everything, distractors=distractors)
    wanted = ('cat', 'dog', 'class 2', 'class 3')
    assert inferencer.classes == wanted and inferencer.distractors == distractors
    results = inferencer(folder / '0.png', score_thr=0)
    (found,) = results['predictions']
    assert results['classes'] == wanted
    assert inferencer.model.bbox_head.test_cfg.max_per_img == 1000

    pairs = list(zip(plain['class_names'], plain['scores'], plain['bboxes'], strict=True))
    assert len(pairs) == 10 * 6
    best = {}
    for name, score, box in pairs:  # best first
        if name in distractors:
            best.setdefault(tuple(box), score)
    expected = [pair for pair in pairs if pair[0] in wanted and pair[1] > best[tuple(pair[2])]]
    assert 0 < len(expected) < 10 * 4, 'some pairs of a box and a wanted class lose to a distractor'
    names, scores, boxes = zip(*expected, strict=True)
    assert found['class_names'] == list(names)
    assert [wanted[label] for label in found['labels']] == list(names)
    for key, value in (('scores', scores), ('bboxes', boxes)):
        torch.testing.assert_close(
            torch.tensor(found[key]), torch.tensor(value), atol=1e-5, rtol=1e-4
        )


def test_distractors_of_boxes_on_the_image_and_in_chunks(inferencer):
    image = picture(7)
    prompts = dict(boxes=[BOX, SECOND_BOX], classes=['shadow', 'dog'], distractors=['shadow'])
    results = inferencer(image, score_thr=0, **prompts)
    assert results['classes'] == ('dog',)
    assert set(results['predictions'][0]['class_names']) <= {'dog'}
    inferencer.model.test_cfg['chunk_size'] = 1
    with pytest.raises(ValueError, match='chunk_size'):
        inferencer(image, **prompts)


def test_smooth_distractors_lower_scores_from_call_to_call(inferencer):
    image, every = picture(7), dict(score_thr=0)
    prompts = dict(boxes=[BOX, SECOND_BOX], classes=['shadow', 'dog'])
    inferencer.model.bbox_head.test_cfg.max_per_img = 1000
    (plain,) = inferencer(image, **prompts, **every)['predictions']
    boxes = {}
    for name, score, box in zip(
        plain['class_names'], plain['scores'], plain['bboxes'], strict=True
    ):
        boxes.setdefault(tuple(np.round(box, 2)), {})[name] = torch.tensor(score).logit()
    inferencer.model.test_cfg.negatives = dict(margin=0.5, temperature=2.0)
    soft = inferencer(image, **prompts, distractors=['shadow'], **every)
    (found,) = soft['predictions']
    assert soft['classes'] == ('dog',) and len(found['scores']) == 10
    for score, box in zip(found['scores'], found['bboxes'], strict=True):
        z = boxes[tuple(np.round(box, 2))]
        expected = z['dog'].sigmoid() * (1 - ((z['shadow'] - z['dog'] - 0.5) / 2).sigmoid())
        assert score == pytest.approx(expected.item(), abs=1e-4)
    inferencer.model.test_cfg.negatives = None
    (hard,) = inferencer(image, **prompts, distractors=['shadow'], **every)['predictions']
    assert len(hard['scores']) < 10 or min(z['dog'] - z['shadow'] for z in boxes.values()) > 0


def test_negatives_of_a_bank_compete_and_are_no_classes(inferencer, folder):
    bank = inferencer.set_prompts(references())
    expected = inferencer.set_prompts(bank=bank, distractors=['cat'])
    by_distractor = inferencer(folder / '0.png', score_thr=0)
    inferencer.set_prompts(bank=expected.with_negatives({'cat': ['dog']}))
    assert inferencer.classes == ('dog',) and inferencer.distractors == ()
    assert inferencer(folder / '0.png', score_thr=0) == by_distractor
    inferencer.model.test_cfg['chunk_size'] = 1
    with pytest.raises(ValueError, match='^With distractors .*chunk_size=1 splits the 2'):
        inferencer(folder / '0.png')


def test_the_old_name_of_distractors_works_until_0_8(inferencer):
    image = picture(7)
    drawn = dict(boxes=[BOX, SECOND_BOX], classes=['shadow', 'dog'])
    with pytest.warns(DeprecationWarning, match='is now distractors=; the old name goes in 0.8'):
        inferencer.set_prompts(references(), negatives=['cat'])
    assert inferencer.negatives == inferencer.distractors == ('cat',)
    with pytest.warns(DeprecationWarning, match='is now distractors='):
        results = inferencer(image, negatives=['shadow'], **drawn)
    assert results == inferencer(image, distractors=['shadow'], **drawn)


def test_distractors_take_no_places_and_duplicates_are_suppressed(inferencer, folder):
    for branch in inferencer.model.bbox_head.reg_branches:
        branch[-1].bias.data[2:] = 2  # wide and high boxes, which overlap
    inferencer.set_prompts(references(), distractors=['cat'])
    (every,) = inferencer(folder / '0.png', score_thr=0)['predictions']
    inferencer.model.bbox_head.test_cfg.max_per_img = 2
    (two,) = inferencer(folder / '0.png', score_thr=0)['predictions']
    assert_same(two, {key: every[key][:2] for key in ('labels', 'scores', 'bboxes')})
    inferencer.model.bbox_head.test_cfg.update(
        max_per_img=20, nms=dict(type='nms', iou_threshold=0.0)
    )
    few = inferencer(folder, score_thr=0)['predictions']
    inferencer.model.bbox_head.test_cfg.nms = None
    many = inferencer(folder, score_thr=0)['predictions']
    counts = [[len(found['scores']) for found in of] for of in (few, many)]
    assert all(1 <= left <= of for left, of in zip(*counts, strict=True))
    assert sum(counts[0]) < sum(counts[1])


def test_score_and_top_k_by_hand():
    found = InstanceData(
        scores=torch.tensor([0.9, 0.8, 0.7, 0.5]), labels=torch.tensor([1, 1, 0, 0])
    )
    assert keep_best(found, 0.5, None).scores.tolist() == found.scores.tolist()
    assert keep_best(found, 0.6, 1).labels.tolist() == [1, 0]
    assert len(keep_best(found, 0.95, 1)) == 0


# --- prompts -----------------------------------------------------------------------------


def test_a_bank_and_further_classes(inferencer, tmp_path):
    first, second = references()
    bank = inferencer.set_prompts(first)
    path = save_prompt_bank(bank, tmp_path / 'bank.safetensors')
    owl = Reference(picture(3), [BOX], 'owl')
    joined = inferencer.set_prompts([owl], path)
    assert joined.class_names == inferencer.classes == ('cat', 'dog', 'owl')
    torch.testing.assert_close(joined.embeddings[:2], bank.embeddings)
    assert len(joined.exemplars) == 3
    with pytest.raises(ValueError, match="more than one bank: 'cat'"):
        inferencer.set_prompts([second], bank)
    assert inferencer.prompt_bank is joined  # a failure leaves the prompts as they were


def test_a_bank_of_other_weights_is_used_with_a_warning(inferencer, monkeypatch):
    said = []
    monkeypatch.setattr(
        'mmdet_dino_r1.apis.inferencer.print_log', lambda text, **_: said.append(text)
    )
    bank = inferencer.set_prompts(references())
    assert said == []
    bank.provenance['weights'] = 'others'
    inferencer.set_prompts(bank=bank)
    assert 'made with the weights others' in said[0]


def test_points_become_squares(inferencer):
    boxes = exemplar_boxes([(30, 20), (0, 0), (1, 2, 3, 4)], (40, 80), 'x', point_size=0.1)
    assert boxes.tolist() == [[28, 18, 32, 22], [0, 0, 2, 2], [1, 2, 3, 4]]
    image = picture(7)
    half = 0.05 * 64 / 2
    (point,) = inferencer(image, boxes=[(30, 20)], classes='cat', score_thr=0)['predictions']
    square = [30 - half, 20 - half, 30 + half, 20 + half]
    (box,) = inferencer(image, boxes=[square], classes='cat', score_thr=0)['predictions']
    assert_same(point, box)


@pytest.mark.parametrize(
    ('box', 'message'),
    [
        ([10, 10, 70, 20], r'\(10, 10, 70, 20\) reaches outside the image, which is 64x64'),
        ([10, 10, 10, 20], 'is empty'),
        ([20, 20, 10, 30], 'is empty'),
        ([1, 2, 3], 'neither a box'),
        ([0, 0, float('nan'), 9], 'neither a box'),
        ([70, 5], 'reaches outside'),
    ],
)
def test_unusable_boxes_are_named(inferencer, box, message):
    with pytest.raises(ValueError, match=message):
        inferencer(picture(0), boxes=[box], classes=['cat'])
    with pytest.raises(ValueError, match=message):
        inferencer.set_prompts([Reference(picture(0), [box], ['cat'])])


def test_a_fraction_outside_is_clipped():
    assert exemplar_boxes([(-0.5, 0, 64.4, 9)], (64, 64), 'x').tolist() == [[0, 0, 64, 9]]


def test_mistakes_in_words(inferencer, tmp_path):
    image = picture(0)
    with pytest.raises(RuntimeError, match='No prompts: call set_prompts'):
        inferencer(image)
    with pytest.raises(ValueError, match='needs references, a bank or both'):
        inferencer.set_prompts()
    with pytest.raises(ValueError, match='2 boxes but 1 class names'):
        inferencer(image, boxes=[BOX, BOX], classes=['cat'])
    with pytest.raises(ValueError, match='boxes is a list of boxes'):
        inferencer(image, boxes=torch.tensor(BOX), classes=['cat'])
    with pytest.raises(ValueError, match='at least one box'):
        Reference(image, [], [])
    with pytest.raises(ValueError, match='needs classes='):
        inferencer(image, boxes=[BOX])
    with pytest.raises(ValueError, match='2 images, but boxes for 1'):
        inferencer([image, image], boxes=[[BOX]], classes=[['cat']])
    with pytest.raises(ValueError, match='belong to boxes='):
        inferencer(image, distractors=['cat'])
    with pytest.raises(ValueError, match=r"no prompt of the distractor 'caat' \(near: cat\)"):
        inferencer.set_prompts(references(), distractors=['caat'])
    with pytest.raises(ValueError, match='All classes are distractors'):
        split_distractors(['a', 'a'], ['a'])
    with pytest.raises(ValueError, match="got the text 'cat'"):
        split_distractors(['cat', 'dog'], 'cat')
    with pytest.raises(FileNotFoundError, match='has no image'):
        inferencer.set_prompts(references())
        inferencer(tmp_path)


def test_configs_and_checkpoints_that_are_not_there(config, checkpoint):
    with pytest.raises(FileNotFoundError, match='ships no config'):
        DINOR1Inferencer('gone.py', checkpoint, 'cpu')
    with pytest.raises(FileNotFoundError, match='no checkpoint'):
        DINOR1Inferencer(config, 'gone.pth', 'cpu')


def test_a_later_runner_gets_a_visualizer_of_its_own(inferencer, config):
    assert inferencer.visualizer.instance_name != config.visualizer.name


# --- images and results ------------------------------------------------------------------


def test_broken_images_are_named_and_the_others_go_on(inferencer, folder):
    inferencer.set_prompts(references())
    (folder / '2.png').write_bytes(b'no image')
    with pytest.raises(UnreadableImage, match='2.png cannot be read as an image'):
        inferencer(folder)
    gone, grey = str(folder / 'gone.png'), np.zeros((8, 8), np.uint8)
    inputs = [*sorted(folder.iterdir()), gone, grey]
    results = inferencer(inputs, 4, skip_broken=True)
    missing = [index for index, found in enumerate(results['predictions']) if found is None]
    assert missing == [2, 6, 7]
    assert list(results['broken']) == [str(folder / '2.png'), gone, 'array 7']
    assert 'There is no image' in results['broken'][gone]
    assert 'uint8 (height, width, 3)' in results['broken']['array 7']
    assert len(to_coco(results)['images']) == 5


def test_other_objects_are_refused_in_words(inferencer):
    with pytest.raises(TypeError, match='An image is a path, .* not Image; np.asarray'):
        inferencer(Image.fromarray(picture(0)), boxes=[BOX], classes='cat')
    with pytest.raises(TypeError, match='An image is a path, .* not NoneType'):
        Reference(None, [BOX], 'cat')
    with pytest.raises(TypeError, match=r'Reference\(image, boxes, classes\), not dict'):
        inferencer.set_prompts([dict(image=picture(0), boxes=[BOX], classes='cat')])
    for name in (3, ' ', None):
        with pytest.raises(ValueError, match=f'the array: a class name is a text, got {name!r}'):
            Reference(picture(0), [BOX], [name])


def test_an_image_too_small_is_left_out_by_name(inferencer, folder, tmp_path, monkeypatch):
    inferencer.set_prompts(references())
    usual = inferencer.model.test_step

    def strict(data):  # the tiny model's ten queries find room in any image
        if data['inputs'][0].shape[-2] < 8:
            raise ValueError('num_queries=10 but the image has only 8 feature points')
        return usual(data)

    monkeypatch.setattr(inferencer.model, 'test_step', strict)
    small = str(tmp_path / 'small.png')
    cv2.imwrite(small, picture(0, (2, 60)))
    with pytest.raises(ValueError, match='small.png: .*num_queries'):
        inferencer([folder / '0.png', small])
    results = inferencer([small, folder / '0.png'], 2, skip_broken=True)
    assert results['predictions'][0] is None and results['predictions'][1] is not None
    assert list(results['broken']) == [small] and 'num_queries' in results['broken'][small]


def test_coco_file_loads(inferencer, folder, tmp_path):
    inferencer.set_prompts(references())
    results = inferencer(folder, 4, score_thr=0, top_k=3)
    path = tmp_path / 'predictions.json'
    path.write_text(json.dumps(to_coco(results, root=folder)))
    coco = COCO(path)
    assert [image['file_name'] for image in coco.loadImgs(coco.getImgIds())] == [
        f'{index}.png' for index in range(6)
    ]
    assert [cat['name'] for cat in coco.loadCats(coco.getCatIds())] == ['cat', 'dog']
    for image_id, found in enumerate(results['predictions'], 1):
        annotations = coco.loadAnns(coco.getAnnIds(image_id))
        assert 1 <= len(annotations) <= 6
        assert [a['score'] for a in annotations] == found['scores']
        x1, y1, x2, y2 = found['bboxes'][0]
        assert annotations[0]['bbox'] == [round(v, 3) for v in (x1, y1, x2 - x1, y2 - y1)]
        assert annotations[0]['area'] == round((x2 - x1) * (y2 - y1), 3)
        # datumaro, which CVAT imports with, fails where the key is missing
        assert all(a['segmentation'] == [] for a in annotations)
    assert len(coco.loadRes(coco.dataset['annotations']).anns) == len(coco.anns)
    with pytest.raises(ValueError, match='return_datasamples=False'):
        to_coco(inferencer(folder / '0.png', return_datasamples=True))


def test_folders_in_a_list_are_their_images(folder):
    every = [folder / f'{index}.png' for index in range(6)]
    assert list_images(folder) == every
    assert list_images([folder / '5.png', folder, 'gone.png']) == [every[5], *every, 'gone.png']


def test_a_folder_gives_what_opencv_reads_and_tells_what_is_left_out(folder, monkeypatch):
    said = []
    monkeypatch.setattr(image_input, 'print_log', lambda text, *_: said.append(text))
    pixels, every = picture(0), sorted(folder.iterdir())
    for suffix in ('jfif', 'gif', 'avif', 'jp2', 'pfm'):
        every.append(folder / f'photo.{suffix}')
        kind = dict(jfif='JPEG', jp2='JPEG2000').get(suffix)
        values = pixels.astype(np.float32)
        cv2.imwrite(str(every[-1]), values) if suffix == 'pfm' else Image.fromarray(pixels).save(
            every[-1], kind
        )
    every.append(folder / 'without_a_suffix')
    every[-1].write_bytes((folder / '0.png').read_bytes())
    assert (list_images(folder), said) == (sorted(every), [])
    (folder / 'more').mkdir()
    for name in ('names.txt', '._0.png'):
        (folder / name).write_bytes(b'BMW\nAudi')
    (folder / 'Thumbs.db').write_bytes(b'\xd0\xcf\x11\xe0')
    (folder / 'boxes.json').write_bytes(b'{}')
    assert list_images(folder) == sorted(every)
    others = '._0.png, Thumbs.db, boxes.json, more/, names.txt'
    assert said == [f'{folder}: 5 left out, which are no images: {others}']
    with pytest.raises(FileNotFoundError, match='more has no image: it is empty'):
        list_images(folder / 'more')


def test_a_loader_of_deep_images_serves_and_leaves_arrays_alone(tmp_path):
    pipeline = image_pipeline(Config.fromfile(CONFIGS / 'dino_r1_r18_shapes.py'))
    pipeline[0] = dict(type='LoadScaledImage', low=0, high=4095)
    read, pixels = ImageReader(pipeline), picture(0)
    cv2.imwrite(str(tmp_path / 'a.png'), pixels.astype(np.uint16) * 16)
    prepared = read(tmp_path / 'a.png', 0)
    scaled = (pixels.astype(float) * 16 * 255 / 4095).round()
    np.testing.assert_array_equal(prepared.pixels, scaled)
    np.testing.assert_array_equal(read(pixels, 1).pixels, pixels)
    with pytest.raises(ValueError, match='does not start with LoadImageFromFile'):
        ImageReader(pipeline[1:])


def test_coco_file_names_lie_under_the_root_and_urls_stay():
    empty = dict(height=1, width=1, labels=[], scores=[], bboxes=[])
    names = ('/photos/a/1.jpg', 'https://example.org/1.jpg')
    results = dict(predictions=[dict(empty, image=name) for name in names], classes=('cat',))
    written = [image['file_name'] for image in to_coco(results, root='/photos')['images']]
    assert written == ['a/1.jpg', 'https://example.org/1.jpg']
    assert [image['file_name'] for image in to_coco(results)['images']] == list(names)


def test_data_samples_and_pictures(inferencer, folder, tmp_path):
    inferencer.set_prompts(references())
    other = tmp_path / 'other'
    other.mkdir()
    cv2.imwrite(str(other / '0.png'), picture(0, (48, 64)))
    out = tmp_path / 'out'
    results = inferencer(
        [folder / '0.png', other / '0.png', picture(1)],
        score_thr=0,
        return_datasamples=True,
        out_dir=out,
        return_vis=True,
    )
    assert sorted(p.name for p in (out / 'vis').iterdir()) == ['0.jpg', '00000002.jpg', '0_1.jpg']
    assert [pic.shape for pic in results['visualization']] == [
        (64, 64, 3),
        (48, 64, 3),
        (64, 64, 3),
    ]
    plain = picture(1)[..., ::-1]
    assert (results['visualization'][2] != plain).any()
    assert len(results['predictions'][0].pred_instances) == 20
    # nothing found: the image as it was, in RGB; of one colour, since matplotlib before 3.11 puts
    # pixels in their neighbours' place
    one_colour = np.full((64, 64, 3), (10, 20, 30), np.uint8)
    blank = inferencer(one_colour, score_thr=1.1, return_vis=True)['visualization'][0]
    assert np.abs(blank.astype(int) - (30, 20, 10)).max() <= 1


@pytest.mark.filterwarnings('error:.*out of bounds')
def test_boxes_at_the_border_are_drawn_without_a_warning(inferencer):
    inferencer.set_prompts(references())
    sample = DetDataSample()
    sample.pred_instances = InstanceData(
        bboxes=torch.tensor([[0.0, 0, 64, 64]]),
        labels=torch.tensor([0]),
        scores=torch.tensor([0.5]),
    )
    image = PreparedImage(0, 'x', (64, 64), {}, picture(1))
    assert inferencer.visualize(image, sample, ('cat', 'dog')).shape == (64, 64, 3)


def test_few_classes_are_drawn_in_colours_far_apart():
    assert spread_colours(1) == [(217, 22, 22)]
    assert spread_colours(3) == [(217, 22, 22), (22, 217, 22), (22, 22, 217)]
    assert len(set(spread_colours(80))) == 80


def test_a_url_is_read(inferencer, folder, monkeypatch):
    monkeypatch.setenv('no_proxy', '*')

    class Silent(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    inferencer.set_prompts(references())
    (by_path,) = inferencer(folder / '0.png', score_thr=0)['predictions']
    with ThreadingHTTPServer(('127.0.0.1', 0), partial(Silent, directory=folder)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f'http://127.0.0.1:{server.server_port}/'
        results = inferencer([f'{url}0.png', f'{url}gone.png'], score_thr=0, skip_broken=True)
        server.shutdown()
    assert results['predictions'][0]['image'] == f'{url}0.png'
    assert_same(results['predictions'][0], by_path)
    assert list(results['broken']) == [f'{url}gone.png']


# --- the page ----------------------------------------------------------------------------


@pytest.fixture
def as_documented(config, checkpoint, tmp_path, monkeypatch):
    """A folder with the files that docs/inference.md names."""
    monkeypatch.chdir(tmp_path)
    for name in ('shelf', 'table', 'bar'):
        cv2.imwrite(f'{name}.jpg', picture(len(name), (220, 240)))
    (tmp_path / 'photos').mkdir()
    for name in ('a', 'b'):
        cv2.imwrite(f'photos/{name}.jpg', picture(0))
    config.dump(tmp_path / 'dino_r1_swin_t_coco.py')
    (tmp_path / 'epoch_12.pth').symlink_to(checkpoint)
    return (Path(__file__).resolve().parents[2] / 'docs' / 'inference.md').read_text()


def test_snippets_of_the_page_run_as_printed(as_documented):
    snippets = re.findall(r'```python\n(.*?)```', as_documented, re.S)
    assert len(snippets) == 8
    names = {}
    for snippet in snippets:
        exec(snippet, names)
        if 'inferencer(' in snippet:
            assert len(names['results']['predictions']) in (1, 2)
    assert sorted(p.name for p in Path('found/vis').iterdir()) == ['a.jpg', 'b.jpg']
    assert names['inferencer'].distractors == ('can',)
    assert len(COCO('predictions.json').imgs) == 2
    assert names['detector'].visualizer.dataset_meta['classes'] == ('bottle', 'can')
    assert sorted(p.name for p in Path('found_by_mmdet/vis').iterdir()) == ['a.jpg', 'b.jpg']


def test_command_of_the_page_runs_as_printed(as_documented):
    (command,) = re.findall(r'```bash\n(.*?)```', as_documented, re.S)
    words = shlex.split(command.replace('\\\n', ' '))
    assert words[:4] == ['mim', 'run', 'mmdet_dino_r1', 'detect']
    assert main([*words[4:], '--device', 'cpu']) == 0
    assert load_prompt_bank('drinks.safetensors').counts == dict(bottle=2, can=1)
    assert Path('found/vis/b.jpg').is_file() and Path('found/predictions.json').is_file()


@pytest.mark.parametrize(
    'name',
    ['dino_r1_swin_t_coco', 'dino_r1_swin_l_finetune', 'dino_r1_swin_t_zeroshot_odinw13'],
)
def test_pipelines_of_shipped_configs_serve(name, folder):
    read = ImageReader(image_pipeline(Config.fromfile(CONFIGS / f'{name}.py')))
    prepared = read(folder / '1.png', 3)
    assert prepared.size == (48, 64) and prepared.data['data_samples'].img_id == 3
    assert prepared.attach([[0, 0, 64, 48]], ['cat'], ['cat']).tolist() == [[0, 0, 64, 48]]
    height, width = prepared.data['inputs'].shape[-2:]
    prompts = prepared.data['data_samples'].prompt_instances
    assert prompts.bboxes.tolist() == [[0, 0, width, height]]
