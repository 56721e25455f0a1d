"""The exported detector gives what the model gives, under PyTorch and under onnxruntime."""

import json
import sys
from copy import deepcopy

import numpy as np
import pytest
import torch
from conftest import build_tiny
from mmengine.registry import init_default_scope

import mmdet_dino_r1
from mmdet_dino_r1.apis.export import (
    METADATA_KEY,
    MIN_TORCH,
    _compare,
    _predict,
    check_onnx,
    export_onnx,
    load_detector,
)
from mmdet_dino_r1.apis.export_graph import PromptedDetector, exportable_copy
from mmdet_dino_r1.engine.bank_builder import weights_fingerprint
from mmdet_dino_r1.structures import PromptBank
from mmdet_dino_r1.utils.compat import torch_version

SIZE = (64, 96)
TINY_SWIN = dict(
    backbone=dict(
        _delete_=True,
        type='FusedSwinTransformer',
        embed_dims=24,
        depths=[2, 2],  # the second of each shifts its windows
        num_heads=[2, 2],
        strides=(4, 2),
        window_size=7,  # neither map is a multiple of it
        out_indices=(0, 1),
        with_cp=True,
    ),
    neck=dict(in_channels=[24, 48]),
)


def make_bank(num_classes=5, **kwargs):
    generator = torch.Generator().manual_seed(2)
    embeddings = torch.randn(num_classes, 256, generator=generator)
    return PromptBank(tuple(f'class {i}' for i in range(num_classes)), embeddings, **kwargs)


def random_images(batch_size, size=SIZE):
    return np.random.default_rng(0).integers(0, 256, (batch_size, 3, *size), dtype=np.uint8)


LATE = dict(fusion=False, prompts_from='memory', prompt_encoder=dict(type='JointPromptEncoder'))


def differences(model, bank, num_detections=None):
    """Of what goes into the graph from the model, both under PyTorch; and boxes per image."""
    images = random_images(2)
    with torch.no_grad():
        detector = PromptedDetector(exportable_copy(model), bank, SIZE, num_detections)
        found = [part.numpy() for part in detector(torch.from_numpy(images))]
    pairs = list(zip(zip(*found, strict=True), _predict(model, bank, images), strict=True))
    each = [_compare(list(of_image), reference) for of_image, reference in pairs]
    counts = found[1].shape[1], len(pairs[0][1])
    return max(d.boxes for d in each), max(d.scores for d in each), counts


@pytest.mark.parametrize('model', [dict(), TINY_SWIN, LATE], ids=['resnet', 'swin', 'late'])
def test_the_replacements_change_nothing(model):
    boxes, scores, counts = differences(build_tiny(**deepcopy(model)), make_bank())
    assert boxes < 2e-3 and scores < 1e-5 and counts == (20, 20)


@pytest.mark.parametrize(
    ('test_cfg', 'count'),
    [
        (dict(chunk_size=2), 20),
        (dict(chunk_size=2, max_per_chunk=4), 12),
        (dict(max_per_img=900), 50),  # pairs of 10 queries and 5 classes
    ],
)
def test_chunks_and_limits_are_those_of_the_model(test_cfg, count):
    model = build_tiny(test_cfg=test_cfg)
    boxes, scores, counts = differences(model, make_bank())
    assert boxes < 2e-3 and scores < 1e-5 and counts == (count, count)


@pytest.mark.parametrize(('model', 'encoders'), [(dict(), 3), (LATE, 1)], ids=['fused', 'late'])
def test_without_fusion_all_chunks_have_one_memory(model, encoders):
    model, bank, calls = build_tiny(**model, test_cfg=dict(chunk_size=2)), make_bank(), []
    with torch.no_grad():
        detector = PromptedDetector(exportable_copy(model), bank, SIZE, None)
        detector.model.encoder.register_forward_hook(lambda *_: calls.append(1))
        detector(torch.from_numpy(random_images(1)))
    assert len(calls) == encoders
    boxes, scores, _ = differences(model, bank)
    assert boxes < 2e-3 and scores < 1e-5


def test_the_number_of_detections_can_be_chosen():
    boxes, scores, counts = differences(build_tiny(), make_bank(), num_detections=3)
    assert boxes < 2e-3 and scores < 1e-5 and counts == (3, 20)


@pytest.mark.parametrize('preprocessor', [dict(bgr_to_rgb=False), dict(mean=None, std=None)])
def test_images_are_prepared_as_the_model_wants_them(preprocessor):
    model = build_tiny(data_preprocessor=preprocessor)
    boxes, scores, _ = differences(model, make_bank())
    assert boxes < 2e-3 and scores < 1e-5


def test_a_wrong_channel_order_would_be_seen():
    model, bank, images = build_tiny(), make_bank(), random_images(1)
    (right,), (wrong,) = _predict(model, bank, images), _predict(model, bank, images[:, ::-1])
    found = [wrong.bboxes, wrong.scores, wrong.labels]
    assert _compare(found, right).scores > 1e-4


def test_the_model_stays_as_it_is():
    model = build_tiny().train()
    model.use_autocast = True
    before = weights_fingerprint(model)
    detector = PromptedDetector(exportable_copy(model), make_bank(), SIZE, None)
    assert not detector.model.use_autocast and not detector.model.training
    assert detector.model.reference_model is None
    assert model.training and model.use_autocast and model.reference_model is not None
    assert weights_fingerprint(model) == before and model.prompt_bank is None
    assert not any('forward' in vars(module) for module in model.modules())


def test_what_cannot_be_exported_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr('mmdet_dino_r1.apis.export._need', lambda *packages: None)
    model, bank, out = build_tiny(), make_bank(), tmp_path / 'm.onnx'
    monkeypatch.setattr('mmdet_dino_r1.apis.export.torch_version', lambda: (2, 5))
    with pytest.raises(ImportError, match=r'torch >= 2\.6, found 2\.'):
        export_onnx(model, bank, out, SIZE)
    monkeypatch.setattr('mmdet_dino_r1.apis.export.torch_version', lambda: MIN_TORCH)
    with pytest.raises(ValueError, match='opset 11 is too old'):
        export_onnx(model, bank, out, SIZE, opset=11)
    with pytest.raises(ValueError, match='width 8, the model needs 256'):
        export_onnx(model, PromptBank(('a',), torch.ones(1, 8)), out, SIZE)
    padding = build_tiny(data_preprocessor=dict(pad_size_divisor=32))
    with pytest.raises(ValueError, match='multiples of data_preprocessor.pad_size_divisor=32'):
        export_onnx(padding, bank, out, (64, 100))
    model.test_cfg.negatives = dict(nearest=1)
    with pytest.raises(ValueError, match=r'without model\.test_cfg\.negatives\.nearest'):
        export_onnx(model, bank, out, SIZE)
    model.test_cfg.negatives = None
    with pytest.raises(ValueError, match='no rows that are negatives'):
        export_onnx(model, bank.with_negatives({bank.class_names[0]: []}), out, SIZE)
    model.bbox_head.test_cfg['nms'] = dict(type='nms', iou_threshold=0.7)
    with pytest.raises(ValueError, match=r'model\.test_cfg\.nms=None'):
        export_onnx(model, bank, out, SIZE)
    assert not list(tmp_path.iterdir())


def test_a_model_is_given_or_described():
    model = build_tiny()
    assert load_detector(model) is model
    with pytest.raises(ValueError, match='belong to a config'):
        load_detector(model, 'w.pth')
    with pytest.raises(ValueError, match='needs checkpoint=FILE'):
        load_detector('c.py')


def test_the_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnx', None)
    with pytest.raises(ImportError, match=r'onnx is not installed.*mmdet_dino_r1\[onnx\]'):
        export_onnx(build_tiny(), make_bank(), tmp_path / 'm.onnx', SIZE)


def skip_without_exporter():
    if torch_version() < MIN_TORCH:
        pytest.skip('ONNX export needs PyTorch 2.6')
    pytest.importorskip('onnxruntime')
    pytest.importorskip('onnxscript')


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    """Model, bank, file and metadata of one export."""
    skip_without_exporter()
    init_default_scope('mmdet')  # what is done for each test comes after this
    torch.manual_seed(0)
    model = build_tiny()
    bank = make_bank(provenance=dict(shots=4, weights=weights_fingerprint(model)))
    path = tmp_path_factory.mktemp('export') / 'made' / 'm.onnx'
    return model, bank, path, export_onnx(model, bank, path, list(SIZE))


@pytest.mark.slow
def test_onnxruntime_gives_the_same_for_any_batch(written):
    model, bank, path, _ = written
    for batch_size in (1, 2, 3):
        difference = check_onnx(path, model, bank, random_images(batch_size))
        assert difference.boxes < 2e-3 and difference.scores < 1e-5


@pytest.mark.slow
def test_inputs_outputs_and_metadata(written):
    import onnxruntime

    model, bank, path, metadata = written
    assert [file.name for file in path.parent.iterdir()] == ['m.onnx']  # no second file of weights
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    (images,) = session.get_inputs()
    assert (images.name, images.type) == ('images', 'tensor(uint8)')
    assert images.shape[1:] == [3, *SIZE] and images.shape[0] == 'batch'
    outputs = {output.name: output for output in session.get_outputs()}
    assert list(outputs) == ['boxes', 'scores', 'labels']
    boxes, scores, labels = session.run(None, dict(images=random_images(2)))
    assert boxes.shape == (2, 20, 4) and boxes.dtype == np.float32
    assert scores.shape == (2, 20) and (np.diff(scores) <= 0).all() and scores.min() > 0
    assert labels.dtype == np.int64 and set(labels.ravel()) <= set(range(5))
    assert (boxes >= 0).all() and (boxes[..., ::2] <= 96).all() and (boxes[..., 1::2] <= 64).all()
    stored = json.loads(session.get_modelmeta().custom_metadata_map[METADATA_KEY])
    assert (
        stored
        == metadata
        == dict(
            class_names=[f'class {i}' for i in range(5)],
            image_size=[64, 96],
            weights=weights_fingerprint(model),
            bank=bank.provenance,
            package_version=mmdet_dino_r1.__version__,
        )
    )


@pytest.mark.slow
def test_the_check_sees_what_does_not_belong_to_the_file(written):
    model, bank, path, _ = written
    images = random_images(1)
    with pytest.raises(ValueError, match='differs from the model'):
        check_onnx(path, model, PromptBank(bank.class_names, -bank.embeddings), images)
    with pytest.raises(ValueError, match='other classes'):
        check_onnx(path, model, make_bank(4), images)
    with pytest.raises(ValueError, match='other weights'):
        torch.manual_seed(1)
        check_onnx(path, build_tiny(), bank, images)
    with pytest.raises(ValueError, match=r'other image size \(H, W\): \[64, 96\], got \[64, 64\]'):
        check_onnx(path, model, bank, random_images(1, (64, 64)))


@pytest.mark.slow
def test_an_image_too_small_is_refused(tmp_path):
    skip_without_exporter()
    with pytest.raises(ValueError, match='num_queries=10 but the image has only 6'):
        export_onnx(build_tiny(), make_bank(), tmp_path / 'm.onnx', (16, 16))


@pytest.mark.slow
def test_late_prompts_under_onnxruntime(tmp_path):
    skip_without_exporter()
    import onnx

    model, bank = build_tiny(**LATE, test_cfg=dict(chunk_size=2)), make_bank()
    export_onnx(model, bank, tmp_path / 'm.onnx', SIZE)
    difference = check_onnx(tmp_path / 'm.onnx', model, bank, random_images(3))
    assert difference.boxes < 2e-3 and difference.scores < 1e-5
    nodes = onnx.load(tmp_path / 'm.onnx').graph.node
    # three levels: one encoder layer, and of each of three chunks two decoder layers
    assert sum(node.op_type == 'GridSample' for node in nodes) == 3 * (1 + 3 * 2)


@pytest.mark.slow
def test_swin_under_onnxruntime(tmp_path):
    skip_without_exporter()
    torch.manual_seed(1)  # rounding moves boxes by 0.001 to 0.002 of a pixel, as the weights are
    model, bank = build_tiny(**deepcopy(TINY_SWIN)), make_bank()  # a config takes _delete_ out
    export_onnx(model, bank, tmp_path / 'm.onnx', SIZE)
    difference = check_onnx(tmp_path / 'm.onnx', model, bank, random_images(3))
    assert difference.boxes < 2e-3 and difference.scores < 1e-5
