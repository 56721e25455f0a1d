"""Visual prompts for validation and test, encoded by the weights that are evaluated."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

from mmdet.registry import DATASETS, HOOKS
from mmengine.dist import barrier, is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import nn
from torch.utils.data import DataLoader, Dataset

from ...config.exemplars import CHOICE_KEYS, exemplar_config
from ...config.tested_sets import SPLIT_KEYS, are_enough, members_of, position_name
from ...structures import (
    PromptBank,
    TextEmbeddings,
    load_prompt_bank,
    load_text_embeddings,
    protocol_summary,
    save_prompt_bank,
)
from ...utils.wrappers import unwrapped, whole_weights
from ...version import __version__
from ..bank_builder import encode_prompt_bank, weights_fingerprint
from ..text_bank import text_prompt_bank
from .evaluation_record import protocol_record, write_record
from .sample_lookup import SampleLookup, interactive_prompts

PROTOCOLS = ('visual_g', 'visual_i', 'text')
# of the dict `bank`
_ENCODING_KEYS = ('keep_exemplars', 'batch_size')
BANK_KEYS = {'path', 'text_embeddings', *SPLIT_KEYS, *CHOICE_KEYS, *_ENCODING_KEYS}


@HOOKS.register_module()
class PromptBankHook(Hook):
    """Gives the model its prompts before every validation and test, and states the protocol.

    - 'visual_g' (generic): per class the mean of N exemplars from a named split, encoded with the
      weights in force, an EMA's too. An exemplar is a box or, for a joint prompt encoder, all boxes
      of the class on an image. A test keeps the bank in ``<work dir>/prompt_banks`` and uses it
      again where weights, exemplars and pipeline are the same.
    - 'visual_i' (interactive): each test image brings one random ground-truth box of each class
      present, which gives the classes away; never mix its numbers with Visual-G's.
    - 'text': the class names alone, by the file ``bank.text_embeddings``, else the one that the
      model's ``text_alignment`` names. Only as good as that alignment.

    A ``DatasetGroup``, or mmdet's ``ConcatDataset``, gets one bank per member. Metrics and protocol
    are written into ``<work dir>/<timestamp>/metrics/{test,epoch_N,iter_N}.json``. Put the hook
    into ``default_hooks``. A bank's rows that are negatives serve every dataset.

    Args:
        bank: path of a bank, or dict(path=...); or where exemplars come from: ``shots`` (N,
            default 16) and ``seed`` (default 0) choose them; ``data_root``, ``ann_file`` and
            ``data_prefix`` name the split, without which it is a member's own ``prompts``, else
            the training set; ``support`` is a published list of exemplars to take as it is in
            place of a choice from the ``ann_file``, or the folder of such lists that the members'
            ``prompts.support`` name; ``match='id'`` matches categories by id instead of by name;
            ``skip_missing`` leaves classes without an exemplar, or that are not in the bank,
            unprompted instead of failing, as those always are that the tested set has no box of;
            ``keep_exemplars`` (default True) keeps their embeddings in the file; ``batch_size``,
            else the test loader's.
        protocol: 'visual_g', 'visual_i', which needs of ``bank`` only the ``seed``, or 'text'.
        strict: refuse a bank that other weights made, instead of warning.

    Raises:
        ValueError: unknown protocol or key.
    """

    # after EMAHook (NORMAL) has swapped the weights in, before LoggerHook has reported
    priority = 'LOW'

    def __init__(
        self, bank: dict | str | None = None, protocol: str = 'visual_g', strict: bool = False
    ) -> None:
        if protocol not in PROTOCOLS:
            raise ValueError(f'PromptBankHook.protocol is one of {PROTOCOLS}, got {protocol!r}')
        self.bank = dict(path=bank) if isinstance(bank, str) else dict(bank or {})
        if unknown := self.bank.keys() - BANK_KEYS:
            raise ValueError(
                f'PromptBankHook.bank has unknown keys {sorted(unknown)}; '
                f'known: {sorted(BANK_KEYS)}'
            )
        self.protocol = protocol
        self.strict = strict
        self._seed = self.bank.get('seed', 0)
        self._lookup: SampleLookup | None = None
        self._record: dict = {}

    def before_val_epoch(self, runner: Runner) -> None:
        """Prompts for the validation set, from the weights as they are now."""
        with whole_weights(runner.model):
            self._install(runner, runner.val_dataloader, may_reuse=False)

    def before_test_epoch(self, runner: Runner) -> None:
        """Prompts for the test set."""
        with whole_weights(runner.model):
            self._install(runner, runner.test_dataloader, may_reuse=True)

    def before_val_iter(self, runner: Runner, batch_idx: int, data_batch: dict) -> None:
        """Tell each sample its dataset or, in Visual-I, its prompts."""
        if self._lookup is None:
            return
        samples = data_batch['data_samples']
        entries = self._lookup.entries(batch_idx, samples)
        for sample, (member, info) in zip(samples, entries, strict=True):
            if self.protocol == 'visual_i':
                sample.prompt_instances = interactive_prompts(info, sample, self._seed)
            else:
                sample.set_metainfo(dict(dataset_name=position_name(member)))

    before_test_iter = before_val_iter

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Write metrics and protocol of a validation."""
        in_epochs = isinstance(runner.train_loop, EpochBasedTrainLoop)
        name = f'epoch_{runner.epoch}' if in_epochs else f'iter_{runner.iter}'
        write_record(runner, name, self._record, metrics)

    def after_test_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Write metrics and protocol of a test."""
        write_record(runner, 'test', self._record, metrics)

    def _install(self, runner: Runner, loader: DataLoader, may_reuse: bool) -> None:
        model = unwrapped(runner.model)
        model.prompt_banks.clear()
        members = members_of(loader.dataset)
        tells_dataset = len(members) == 1 or hasattr(loader.dataset, 'prompt_sources')
        visual_i = self.protocol == 'visual_i'
        self._lookup = SampleLookup(loader) if visual_i or not tells_dataset else None
        if visual_i:
            print_log(
                'Visual-I: the prompts of a test image are boxes of its own ground truth, so the '
                'classes present are given away. Not comparable with Visual-G.',
                logger='current',
            )
            provenance = dict(seed=self._seed, shots=1, fewest=1, ann_file='the test images')
            self._record = protocol_record(self.protocol, model, {None: provenance})
            return
        fingerprint = weights_fingerprint(model)
        provenances = {}
        for name, member, source in members:
            classes = member.metainfo['classes']
            chunk_size = model.test_cfg.get('chunk_size', 0)
            model.bbox_head.negatives.refuse_chunks(chunk_size, len(classes), given=False)
            if self.protocol == 'text':
                bank = text_prompt_bank(model, self._texts(model), classes)
            elif 'path' in self.bank:
                bank = load_prompt_bank(self.bank['path'])
                self._check_weights(bank, fingerprint)
            else:
                exemplars = DATASETS.build(exemplar_config(self.bank, runner.cfg, member, source))
                bank = self._built_or_kept(runner, loader, exemplars, may_reuse, fingerprint)
            skips = self.bank.get('skip_missing') or are_enough(bank.class_names, member)
            aligned = bank.aligned_to(classes, skips)
            model.set_prompt_bank(aligned, name)
            without = [label for label in classes if label not in set(aligned.class_names)]
            provenances[name] = dict(bank.provenance, classes_left_out=without)
            title = 'Prompts from text' if self.protocol == 'text' else 'Visual-G prompts'
            title += '' if name is None else f' of {name}'
            line = f'{title}: {protocol_summary(bank.provenance)} ({len(classes)} classes)'
            print_log('\n  '.join([line, *bank.differences_from(classes)]), logger='current')
        self._record = protocol_record(self.protocol, model, provenances, fingerprint)

    def _texts(self, model: nn.Module) -> TextEmbeddings:
        of_model = getattr(model.text_alignment, 'embeddings', None)
        path = self.bank.get('text_embeddings') or of_model
        if path is None:
            raise ValueError(
                "PromptBankHook.protocol='text' needs bank=dict(text_embeddings=FILE); make the "
                'file: mim run mmdet_dino_r1 cache_text_embeddings CONFIG --out FILE'
            )
        return load_text_embeddings(path)

    def _built_or_kept(
        self, runner: Runner, loader: DataLoader, exemplars: Dataset, may_reuse: bool, weights: str
    ) -> PromptBank:
        """Encode a bank, or read it where the very same one was encoded before."""
        options = dict(
            batch_size=self.bank.get('batch_size')
            or loader.batch_size
            or loader.batch_sampler.batch_size,
            keep_exemplars=self.bank.get('keep_exemplars', True),
        )
        key = dict(
            exemplars.summary,
            weights=weights,
            classes=exemplars.metainfo['classes'],
            pipeline=repr(exemplars.pipeline),
            package_version=__version__,
            **options,
        )
        digest = hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()
        path = Path(runner.work_dir) / 'prompt_banks' / f'{digest[:16]}.safetensors'
        if may_reuse and path.is_file():
            print_log(f'Prompt bank: {path}, encoded before', logger='current')
            return load_prompt_bank(path)
        bank = encode_prompt_bank(
            unwrapped(runner.model),
            exemplars,
            num_workers=loader.num_workers,
            progress=may_reuse,
            provenance=dict(model=Path(runner.cfg.filename or '').stem),
            **options,
        )
        if may_reuse and is_main_process():
            level = logging.INFO
            try:
                told = f'Prompt bank kept: {save_prompt_bank(bank, path)}'
            except OSError as error:  # a work dir that is full or read-only costs only the time
                told, level = f'The prompt bank was not kept: {error}', logging.WARNING
            print_log(told, logger='current', level=level)
        if may_reuse:
            barrier()
        return bank

    def _check_weights(self, bank: PromptBank, fingerprint: str) -> None:
        if message := bank.other_weights(fingerprint):
            message = f'{self.bank["path"]}: {message}'
            if self.strict:
                raise ValueError(message)
            print_log(message, logger='current', level=logging.WARNING)
