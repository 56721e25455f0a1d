"""A language model for mmdet's Grounding DINO, with random weights: only its speed counts.

Shapes: bs, num_tokens (of a caption).
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace

import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

from .workload import class_name

# LVIS has the most classes of all sets
MAX_CLASSES = 1203
SPECIAL_TOKENS = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '.', '?']


@contextmanager
def language_model_cfg() -> Iterator[tuple[dict, str]]:
    """Config of a language model for mmdet's Grounding DINO, and what to call it in a report.

    With transformers it is mmdet's ``BertModel`` of BERT-base's size with random weights and a
    vocabulary of the workload's class names; without, :class:`StubLanguageModel`. Its files are
    there only inside the ``with``.
    """
    try:
        import transformers
    except ImportError:
        missing = 'transformers is not installed'
    else:
        version = transformers.__version__
        too_new = int(version.partition('.')[0]) >= 5
        missing = f'mmdet needs transformers<5, not {version}' if too_new else ''
    if missing:
        yield dict(type='StubLanguageModel'), f'a stub, no BERT: {missing}'
        return
    with tempfile.TemporaryDirectory(prefix='random_bert_') as folder:
        _write_bert(Path(folder), transformers)
        cfg = dict(
            type='BertModel',
            name=folder,
            max_tokens=256,
            pad_to_max=False,
            use_sub_sentence_represent=True,
            special_tokens_list=['[CLS]', '[SEP]', '.', '?'],
            add_pooling_layer=False,
        )
        yield cfg, f'BERT-base with random weights (transformers {version})'


def _write_bert(folder: Path, transformers: ModuleType) -> None:
    vocabulary = SPECIAL_TOKENS + [class_name(index) for index in range(MAX_CLASSES)]
    (folder / 'vocab.txt').write_text('\n'.join(vocabulary) + '\n', encoding='utf-8')
    transformers.BertTokenizerFast(str(folder / 'vocab.txt')).save_pretrained(folder)
    # the embedding keeps BERT's own size, so that there are as many parameters to optimise
    model = transformers.BertModel(transformers.BertConfig(), add_pooling_layer=False)
    model.save_pretrained(folder)


class _Caption(SimpleNamespace):
    """A tokenized caption as far as Grounding DINO reads it."""

    def char_to_token(self, char: int) -> int | None:
        """Index of the token that covers a character of the caption."""
        for token, (start, end) in enumerate(self.spans, start=1):  # 0 is the start token
            if start <= char < end:
                return token
        return None


@MODELS.register_module()
class StubLanguageModel(nn.Module):
    """As much of BERT as Grounding DINO looks at: tokens with random embeddings, no layers."""

    pad_to_max = False
    max_tokens = 256
    width = 768

    def __init__(self) -> None:
        super().__init__()
        self.language_backbone = SimpleNamespace(body=SimpleNamespace(language_dim=self.width))
        self.embedding = nn.Embedding(self.max_tokens, self.width)

    @staticmethod
    def tokenizer(captions: list[str], **kwargs) -> _Caption:
        """Words and full stops, between a start and an end token; one caption.

        Args:
            captions: a list of one.
            **kwargs: padding and type, without effect.
        """
        spans = [match.span() for match in re.finditer(r'\w+|\.', captions[0])]
        return _Caption(spans=spans, input_ids=torch.zeros(1, len(spans) + 2, dtype=torch.long))

    def forward(self, captions: list[str]) -> dict[str, Tensor]:
        """``embedded`` (bs, num_tokens, 768) and the masks of single-token names.

        Args:
            captions: with the same number of tokens each.
        """
        bs, device = len(captions), self.embedding.weight.device
        num_tokens = self.tokenizer(captions[:1]).input_ids.shape[1]
        tokens = torch.arange(num_tokens, device=device)
        embedded = self.embedding(tokens).expand(bs, -1, -1)
        return dict(
            embedded=embedded,
            hidden=embedded,
            masks=torch.eye(num_tokens, dtype=torch.bool, device=device).expand(bs, -1, -1),
            position_ids=torch.zeros(bs, num_tokens, dtype=torch.long, device=device),
            text_token_mask=torch.ones(bs, num_tokens, dtype=torch.bool, device=device),
        )
