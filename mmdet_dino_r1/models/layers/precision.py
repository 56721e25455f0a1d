"""Which parts of the network compute in float32 whatever autocast says (ours).

Half precision is too coarse or too narrow in two places: float16 ends at 65504, and the largest
logits of a fusion go beyond it; bfloat16 has 8 bits, and objectness read from it is full of ties.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from ...utils.compat import is_compiling


def in_float32(like: Tensor) -> AbstractContextManager:
    """A context without autocast on the device of ``like``, which has any shape.

    What is computed there must be given as float32.
    """
    # an exported graph is made in float32, and would get the context as a node of its own
    if is_compiling():
        return nullcontext()
    return torch.autocast(like.device.type, enabled=False)
