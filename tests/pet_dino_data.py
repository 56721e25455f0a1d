"""Where the numbers of PET-DINO's own modules lie, which are not part of this project."""

import json
import os
from pathlib import Path

import pytest

PET_DINO = Path(
    os.environ.get('DINO_R1_PET_DINO', Path(__file__).resolve().parents[2] / 'shared' / 'pet_dino')
)
PARITY, SUPPORT = PET_DINO / 'parity', PET_DINO / 'support'
needs_pet_dino = pytest.mark.skipif(
    not PARITY.is_dir(), reason=f'the numbers of PET-DINO are not at {PET_DINO}'
)


def published_keys(size: str) -> dict[str, list[int]]:
    """Names and shapes of the tensors of PET-DINO's checkpoint of a size, 't' or 'l'."""
    return json.loads((PET_DINO / f'keys_swin_{size}.json').read_text())


def small_state() -> dict:
    """The state of the small model of the parity numbers, float32, under PET-DINO's names."""
    from safetensors.torch import load_file

    files = ('weights_visual_prompt.safetensors', 'weights_rest.safetensors')
    return {k: v.float() for file in files for k, v in load_file(PARITY / file).items()}
