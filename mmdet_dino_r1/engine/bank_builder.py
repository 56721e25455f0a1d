"""Encodes exemplars into a prompt bank, over one process or several."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from mmengine.dataset import pseudo_collate
from mmengine.dist import all_gather_object, get_rank, get_world_size, is_main_process
from mmengine.registry import DATA_SAMPLERS
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, SequentialSampler

from ..structures import BankExemplars, PromptBank
from ..utils.progress import with_progress
from ..version import __version__


def encode_prompt_bank(
    model: nn.Module,
    exemplars: Dataset,
    batch_size: int = 1,
    num_workers: int = 0,
    keep_exemplars: bool = True,
    progress: bool = False,
    provenance: Mapping | None = None,
) -> PromptBank:
    """Encode an ``ExemplarDataset`` with the weights of a ``DINOR1`` (protocol Visual-G).

    With a joint prompt encoder all boxes of a class on an image are one exemplar. A class's prompt
    is the mean over its exemplars, each of weight 1 whatever its number of boxes.

    Every process encodes every n-th batch and gets the whole bank, on the CPU. Batches hold images
    of one size and are the same however many processes there are, so the bank is, too.

    Raises:
        FileNotFoundError: image files are missing; looked for before any is encoded.
        ValueError: an image cannot be read or has another size than annotated.
    """
    exemplars.check_images()
    sampler = SequentialSampler(exemplars)
    cfg = dict(type='SameSizeBatchSampler', sampler=sampler, batch_size=batch_size)
    batches = list(DATA_SAMPLERS.build(cfg))
    mine = batches[get_rank() :: get_world_size()]
    loader = DataLoader(
        exemplars, batch_sampler=mine, num_workers=num_workers, collate_fn=pseudo_collate
    )
    model.eval()
    encoded = []
    for data in with_progress(loader, progress and is_main_process()):
        embeddings, choice = model.encode_reference_images(data)
        encoded.append((embeddings.float().cpu(), choice.box_sets))

    by_rank = all_gather_object(encoded)
    in_order = [by_rank[i % len(by_rank)][i // len(by_rank)] for i in range(len(batches))]
    return assemble_bank(model, exemplars, batches, in_order, keep_exemplars, provenance)


def assemble_bank(
    model: nn.Module,
    exemplars: Dataset,
    batches: Sequence[Sequence[int]],
    encoded: Sequence[tuple[Tensor, Tensor | None]],
    keep_exemplars: bool = True,
    provenance: Mapping | None = None,
) -> PromptBank:
    """The bank of batches of images that were encoded, and its record.

    ``batches`` are places in ``exemplars`` of images that have some, ``encoded`` of each batch the
    (num_exemplars, dim) embeddings and their :attr:`ExemplarChoice.box_sets`.
    """
    record = BankExemplars.join(
        [_record(exemplars, *batch) for batch in zip(batches, encoded, strict=True)]
    )
    classes = exemplars.metainfo['classes']
    described = exemplars.summary | record.summary(classes) | dict(provenance or {})
    described['package_version'] = __version__
    if 'weights' not in described:
        described['weights'] = weights_fingerprint(model)
    bank = PromptBank.from_exemplars(classes, record.embeddings, record.set_labels, described)
    kept = record if keep_exemplars else replace(record, embeddings=None)
    return replace(bank, class_ids=exemplars.class_ids, exemplars=kept)


def weights_fingerprint(model: nn.Module) -> str:
    """16 hexadecimal digits that change when any weight or buffer does, or its name or type."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f'{name} {tensor.dtype} {tuple(tensor.shape)}'.encode())
        # a copy: FSDP frees the storage of its weights afterwards, which numpy's view would pin
        flat = tensor.detach().cpu().clone(memory_format=torch.contiguous_format).reshape(-1)
        digest.update(memoryview(flat.view(torch.uint8).numpy()))
    return digest.hexdigest()[:16]


def _record(
    exemplars: Dataset, batch: Sequence[int], encoded: tuple[Tensor, Tensor | None]
) -> BankExemplars:
    """What a batch's embeddings were encoded from, image by image, and their boxes' sets."""
    infos = [exemplars.get_data_info(index) for index in batch]
    rows = [
        (label, box, info['img_id'], info['file_name'])
        for info in infos
        for label, box in zip(info['exemplar_labels'], info['exemplar_boxes'], strict=True)
    ]
    labels, boxes, image_ids, file_names = zip(*rows, strict=True)
    return BankExemplars(torch.tensor(labels), torch.tensor(boxes), image_ids, file_names, *encoded)
