"""What visual-guided query selection hands to the decoder and to the losses."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class QuerySelection:
    """The ``num_queries`` image tokens with the highest objectness, best first.

    Attributes:
        indices: (bs, num_queries) long, positions in the flattened memory.
        logits: (bs, num_queries, num_prompts) similarity to each prompt; the
            lowest number of its type at padding prompts.
        boxes_unact: (bs, num_queries, 4) (cx, cy, w, h) before the sigmoid.
    """

    indices: Tensor
    logits: Tensor
    boxes_unact: Tensor

    @property
    def objectness_logits(self) -> Tensor:
        """(bs, num_queries): the best prompt's logit at each selected token."""
        return self.logits.max(dim=-1).values


def take_tokens(tokens: Tensor, indices: Tensor) -> Tensor:
    """(bs, num_points, dim) tokens at ``indices`` (bs, n) long: (bs, n, dim).

    ``take_along_dim`` does the same, but fixes bs in an exported graph.
    """
    return tokens.gather(1, indices[..., None].expand(-1, -1, tokens.shape[-1]))
