"""Work on some tokens at a time where no gradient is wanted (ours).

Shapes: bs, num_tokens.

On a CPU the wide intermediates of all tokens at once outgrow the cache, and each is got from and
given back to the operating system (glibc keeps no block above 32 MB), which took a third of such a
pass. Training keeps them for the backward pass anyway, and a GPU has an allocator of its own.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...utils.compat import is_compiling

CHUNK_SIZE = 1024


def in_chunks(function: Callable[..., Tensor], *tokens: Tensor) -> Tensor:
    """``function(*tokens)``, but for rounding, of a function that treats every token alike.

    It takes tensors (bs, n, ...) and gives (bs, n, dim), for any n.
    """
    first = tokens[0]
    # an exported graph would get a copy of the function for each chunk
    at_once = torch.is_grad_enabled() or first.is_cuda or is_compiling()
    if at_once or first.shape[1] <= CHUNK_SIZE:
        return function(*tokens)
    chunks = zip(*(part.split(CHUNK_SIZE, dim=1) for part in tokens), strict=True)
    return torch.cat([function(*chunk) for chunk in chunks], dim=1)
