"""The shipped Swin-T config of PET-DINO, from a PNG to boxes, as PET-DINO's own modules do it."""

import runpy

import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from pet_dino_data import PARITY, needs_pet_dino, published_keys

from mmdet_dino_r1 import config_path
from mmdet_dino_r1.structures.prompt_instances import prompt_instances

FOLDER = PARITY / 'full_swin_t'


def published_state(seed: int) -> dict:
    """The tensors of a checkpoint of PET-DINO, text parts left out, by formula."""
    weight = runpy.run_path(str(PARITY / 'formula_weights.py'))['weight']
    return {
        name: torch.from_numpy(weight(name, tuple(shape), seed)).float()
        for name, shape in published_keys('t').items()
        if not name.startswith(('language_model.', 'text_feat_map.'))
        and 'relative_position_index' not in name
    }


@needs_pet_dino
@pytest.mark.slow
@torch.no_grad()
def test_from_an_image_file_to_boxes():
    cfg = Config.fromfile(config_path('pet_dino_swin_t_zeroshot_coco.py'))
    cfg.model.update(num_queries=100)
    cfg.model.backbone.pop('init_cfg')
    model = MODELS.build(cfg.model).eval()
    with np.load(FOLDER / 'full.npz') as file:
        expected = {key: torch.from_numpy(np.asarray(file[key])) for key in file.files}
    state = published_state(int(expected['seed']))
    state['query_embedding.weight'] = state['query_embedding.weight'][:100]
    missing, _ = model.load_state_dict(state, strict=False)
    assert all('relative_position_index' in name for name in missing)

    image = dict(img_path=str(FOLDER / 'image.png'), img_id=0, instances=[])
    data = Compose(cfg.test_dataloader.dataset.pipeline)(image)
    sample = data['data_samples']
    assert list(sample.img_shape) == expected['img_shape'].tolist()
    sample.prompt_instances = prompt_instances(
        expected['prompt_boxes_original'].float(),
        expected['prompt_labels'].long(),
        sample.ori_shape,
        sample.img_shape,
    )
    seen = {}
    model.prompt_encoder.register_forward_hook(
        lambda _, given, prompts: seen.update(memory=given[0][0], prompts=prompts)
    )
    model.query_selector.register_forward_hook(lambda *args: seen.update(selection=args[2]))
    (result,) = model.test_step(pseudo_collate([data]))

    close = dict(rtol=0, atol=1e-4)
    at = expected['tokens_at'].long()
    torch.testing.assert_close(seen['memory'][at], expected['memory_at'].float(), **close)
    torch.testing.assert_close(seen['prompts'], expected['prompts'].float(), **close)
    assert torch.equal(seen['selection'].indices[0], expected['selected'].long())
    found = result.pred_instances
    assert torch.equal(found.labels, expected['det_labels'].long())
    torch.testing.assert_close(found.scores, expected['det_scores'].float(), rtol=0, atol=1e-5)
    torch.testing.assert_close(found.bboxes, expected['det_boxes'].float(), rtol=0, atol=1e-2)
