"""The stages that learn."""

from .denoising import DenoisingQueries
from .fusion import PromptDecoder, PromptFusionEncoder
from .joint_prompt_encoder import JointPromptEncoder
from .query_selector import PromptContrastiveEmbed, VisualGuidedQuerySelector
from .token_grid import flatten_levels, image_padding, proposals, token_grid
from .visual_prompt_encoder import VisualPromptEncoder

__all__ = [
    'DenoisingQueries',
    'JointPromptEncoder',
    'PromptContrastiveEmbed',
    'PromptDecoder',
    'PromptFusionEncoder',
    'VisualGuidedQuerySelector',
    'VisualPromptEncoder',
    'flatten_levels',
    'image_padding',
    'proposals',
    'token_grid',
]
