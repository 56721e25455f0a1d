"""SAHI cuts large images into slices; its own wrapper of mmdet takes our config and a bank."""

import numpy as np
import pytest
import torch
from conftest import CONFIGS, build_tiny, tiny_model_cfg
from mmdet.apis import inference_detector
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmdet_dino_r1 import PromptBank, save_prompt_bank

pytest.importorskip('sahi')  # `make test-all` installs it
from sahi import AutoDetectionModel
from sahi.predict import get_sliced_prediction

pytestmark = pytest.mark.slow
IMAGE = np.random.default_rng(5).integers(0, 256, (128, 128, 3), np.uint8)  # RGB, as SAHI has it
OFFSETS = [(0, 0), (64, 0), (0, 64), (64, 64)]  # x, y
SLICES = [IMAGE[y : y + 64, x : x + 64] for x, y in OFFSETS]


@pytest.fixture(scope='module')
def detector(tmp_path_factory):
    """SAHI's model of a config with a bank; nothing but files is given to it."""
    init_default_scope('mmdet')
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp('sahi')
    model = build_tiny()
    for branch in model.bbox_head.cls_branches:  # scores that differ, not all at the prior
        torch.nn.init.zeros_(branch.bias)
    meta = dict(dataset_meta=dict(classes=('cat', 'dog', 'cow')))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), folder / 'tiny.pth')
    bank = PromptBank(('hen', 'owl', 'emu'), torch.randn(3, 256)).with_negatives({'emu': ()})
    cfg = Config.fromfile(CONFIGS / 'dino_r1_swin_t_coco.py')
    cfg.model = tiny_model_cfg(
        prompt_bank=str(save_prompt_bank(bank, folder / 'birds.safetensors'))
    )
    for step in cfg.test_dataloader.dataset.pipeline:
        if step.type == 'FixScaleResize':
            step.update(type='Resize', scale=(64, 64))
    cfg.dump(folder / 'sliced.py')
    return AutoDetectionModel.from_pretrained(
        'mmdet',
        model_path=str(folder / 'tiny.pth'),
        config_path=str(folder / 'sliced.py'),
        device='cpu',
        confidence_threshold=0.1,
    )


def sliced(detector, **options):
    """All detections of the four slices, unmerged: boxes, scores and class names."""
    found = get_sliced_prediction(
        IMAGE, detector, 64, 64, 0, 0, postprocess_match_threshold=1.1, verbose=0, **options
    ).object_prediction_list
    return sorted((*item.bbox.to_xyxy(), item.score.value, item.category.name) for item in found)


def test_slices_are_detected_like_images_and_shifted_under_the_names_of_the_bank(detector):
    model, expected = detector.model.model, []
    for image, (x, y) in zip(SLICES, OFFSETS, strict=True):
        alone = inference_detector(model, image[..., ::-1].copy()).pred_instances
        alone = alone[alone.scores >= 0.1]
        boxes = alone.bboxes + torch.tensor([x, y, x, y])
        names = [('hen', 'owl')[label] for label in alone.labels]
        expected += zip(boxes.tolist(), alone.scores.tolist(), names, strict=True)
    found = sliced(detector, perform_standard_pred=False)
    assert detector.category_mapping == {'0': 'hen', '1': 'owl', '2': 'emu'}
    assert {name for *_, name in found} == {'hen', 'owl'}  # not the negative
    expected = sorted((*box, score, name) for box, score, name in expected)
    assert len(expected) > 20
    assert [name for *_, name in found] == [name for *_, name in expected]
    np.testing.assert_allclose([f[:5] for f in found], [e[:5] for e in expected], rtol=1e-6)


@pytest.mark.parametrize('whole', [False, True])
def test_the_model_sees_each_slice_once_and_no_prompt_is_encoded(detector, whole, monkeypatch):
    model, seen, encoded = detector.model.model, [], []
    step = model.test_step
    monkeypatch.setattr(model, 'test_step', lambda data: seen.append(data['inputs']) or step(data))
    handle = model.prompt_encoder.register_forward_hook(lambda *_: encoded.append(True))
    sliced(detector, perform_standard_pred=whole)
    handle.remove()
    assert [len(inputs) for inputs in seen] == [1] * (4 + whole) and not encoded
    for (inputs,), image in zip(seen, SLICES, strict=False):
        assert torch.equal(inputs, torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1))
