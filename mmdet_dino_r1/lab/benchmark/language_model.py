"""A language model for mmdet's Grounding DINO, with random weights: only its speed counts."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

from .workload import class_name

MAX_TOKENS = 256  # of a caption, in mmdet's Grounding DINO
MAX_CLASSES = 1203  # LVIS has the most of all sets
SPECIAL_TOKENS = ['[CLS]', '[SEP]', '.', '?']


def language_model_cfg(folder: Path) -> tuple[dict, str]:
    """Config of a language model for mmdet's Grounding DINO, and what to call it in a report.

    With transformers it is a BERT-base, whose files go into ``folder``; without, a stub.
    """
    stub = dict(type='StubLanguageModel')
    try:
        import transformers
    except ImportError:
        return stub, 'a stub, no BERT: transformers is not installed'
    version = transformers.__version__
    if int(version.partition('.')[0]) >= 5:
        return stub, f'a stub, no BERT: mmdet needs transformers<5, not {version}'
    words = ['[PAD]', '[UNK]', *SPECIAL_TOKENS, *map(class_name, range(MAX_CLASSES))]
    (folder / 'vocab.txt').write_text('\n'.join(words) + '\n', encoding='utf-8')
    transformers.BertTokenizerFast(str(folder / 'vocab.txt')).save_pretrained(folder)
    # the embedding keeps BERT's own size, so that there are as many parameters to optimise
    model = transformers.BertModel(transformers.BertConfig(), add_pooling_layer=False)
    model.save_pretrained(folder)
    cfg = dict(
        type='BertModel',
        name=str(folder),
        max_tokens=MAX_TOKENS,
        pad_to_max=False,
        use_sub_sentence_represent=True,
        special_tokens_list=SPECIAL_TOKENS,
        add_pooling_layer=False,
    )
    return cfg, f'BERT-base with random weights (transformers {version})'


@MODELS.register_module()
class StubLanguageModel(nn.Module):
    """As much of BERT as Grounding DINO looks at: tokens with random embeddings, no layers."""

    pad_to_max = False
    max_tokens = MAX_TOKENS
    width = 768

    def __init__(self) -> None:
        super().__init__()
        self.language_backbone = SimpleNamespace(body=SimpleNamespace(language_dim=self.width))
        self.embedding = nn.Embedding(self.max_tokens, self.width)

    @staticmethod
    def tokenizer(captions: list[str], **kwargs) -> SimpleNamespace:
        """Words and full stops of one caption, between a start and an end token."""
        words = list(re.finditer(r'\w+|\.', captions[0]))
        tokens = {at: token for token, word in enumerate(words, 1) for at in range(*word.span())}
        input_ids = torch.zeros(1, len(words) + 2, dtype=torch.long)
        return SimpleNamespace(char_to_token=tokens.get, input_ids=input_ids)

    def forward(self, captions: list[str]) -> dict[str, Tensor]:
        """Of captions of one length ``embedded`` (bs, num_tokens, 768), and the masks."""
        bs, device = len(captions), self.embedding.weight.device
        num_tokens = self.tokenizer(captions).input_ids.shape[1]
        embedded = self.embedding.weight[:num_tokens].expand(bs, -1, -1)
        return dict(
            embedded=embedded,
            hidden=embedded,
            masks=torch.eye(num_tokens, dtype=torch.bool, device=device).expand(bs, -1, -1),
            position_ids=torch.zeros(bs, num_tokens, dtype=torch.long, device=device),
            text_token_mask=torch.ones(bs, num_tokens, dtype=torch.bool, device=device),
        )
