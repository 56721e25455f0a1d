"""PET-DINO's names and ours for the same tensors."""

import json

import pytest
from pet_dino_data import PET_DINO, needs_pet_dino, published_keys

from mmdet_dino_r1.utils.checkpoint_fit import state_of
from mmdet_dino_r1.utils.pet_dino_keys import is_pet_dino, our_names


@needs_pet_dino
@pytest.mark.parametrize('size, count', [('t', 982), ('l', 1156)])
def test_every_published_name(size, count):
    """Against the table that was made by hand; what has no home there keeps its name."""
    keys = published_keys(size)
    table = json.loads((PET_DINO / f'mapping_swin_{size}.json').read_text())
    ours = our_names({name: name for name in keys})
    assert len(ours) == len(keys) == count and is_pet_dino(keys)
    assert {theirs: name for name, theirs in ours.items()} == {
        theirs: row['ours'] or theirs for theirs, row in table.items()
    }


def test_others_are_left_alone():
    state = {'prompt_encoder.content.weight': 1, 'visual_feat_map.weight': 2}
    assert not is_pet_dino(state) and our_names(state) == state


def test_in_a_checkpoint_of_a_wrapped_model():
    state = {'module.visual_prompt_encoder.visual_layers.0.norms.0.bias': 1, 'module.neck.x': 2}
    assert is_pet_dino(state)
    expected = {'prompt_encoder.layers.0.norms.0.bias': 1, 'neck.x': 2}
    assert state_of(dict(state_dict=state, meta={})) == state_of(state) == expected
