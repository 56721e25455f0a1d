"""The stages that learn."""

from .contrastive_embed import PromptContrastiveEmbed
from .denoising import DenoisingQueries
from .fusion import PromptDecoder, PromptFusionEncoder
from .query_selector import VisualGuidedQuerySelector
from .token_grid import image_padding, proposals, token_grid
from .visual_prompt_encoder import VisualPromptEncoder

__all__ = [
    'DenoisingQueries',
    'PromptContrastiveEmbed',
    'PromptDecoder',
    'PromptFusionEncoder',
    'VisualGuidedQuerySelector',
    'VisualPromptEncoder',
    'image_padding',
    'proposals',
    'token_grid',
]
