"""PET-DINO's checkpoints (arXiv 2604.00503): how they are told, and our names for their tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

_MARK = 'visual_prompt_encoder.'
# How a name begins there, and here; the names of all other tensors are the same.
_OURS = {
    'visual_prompt_model.content_embedding.': 'prompt_encoder.content.',
    'visual_prompt_model.universal_content_embedding.': 'prompt_encoder.image_content.',
    'visual_feat_map.': 'prompt_encoder.content_map.',
    f'{_MARK}ref_point_head.': 'prompt_encoder.position.',
    f'{_MARK}visual_layers.': 'prompt_encoder.layers.',
}
_Value = TypeVar('_Value')


def is_pet_dino(names: Iterable[str]) -> bool:
    """Whether a state with these names, in a wrapper or not, is one of PET-DINO's."""
    return any(name.removeprefix('module.').startswith(_MARK) for name in names)


def our_names(state: Mapping[str, _Value]) -> dict[str, _Value]:
    """A state of PET-DINO under our names; any other as it is."""
    if not is_pet_dino(state):
        return dict(state)
    return {_our_name(name): value for name, value in state.items()}


def _our_name(name: str) -> str:
    for theirs, ours in _OURS.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name
