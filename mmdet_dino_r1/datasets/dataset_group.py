"""Several test sets under one config, each with its own classes and its own prompts."""

from __future__ import annotations

import os
from collections.abc import Sequence

from mmdet.datasets import ConcatDataset
from mmdet.registry import DATASETS
from mmengine.logging import print_log

from ..config.mmdet_2 import explain_arguments
from ..utils.near_names import quote_with_near


@DATASETS.register_module()
class DatasetGroup(ConcatDataset):
    """mmdet's ``ConcatDataset`` with names, for benchmarks such as ODinW.

    Members are a dict, so that a config inherits, overrides or drops each by name. Every data
    sample carries its member's name (``dataset_name``), by which ``PromptBankHook`` gives it
    that member's prompts and ``DatasetGroupEvaluator`` takes it to that member's metric.

    Args:
        datasets: config of each member by name, None to drop it. Besides the dataset's own
            arguments it may have ``prompts``: the ``ann_file``, ``data_prefix`` and, where it
            differs, ``data_root`` of its exemplars; ``match='id'`` matches categories by id.
            ``support`` is the name of its list of exemplars in a folder that ``PromptBankHook`` may
            be given.
        only: names to keep; None keeps all.
        common: what the members share, such as ``type`` and ``pipeline``; a member's own arguments
            go first.
        skip_missing: leave out members whose annotation file does not exist, rather than fail.
        lazy_init: look for no file and read none, so that there is no ``metainfo``, before
            ``full_init``.

    Attributes:
        names: of the members in use, in order.
        skipped: names left out by ``skip_missing``.
        prompt_sources: ``prompts`` of each member by name, None where it gave none.

    Raises:
        TypeError: ``only`` is a single text.
        KeyError: ``only`` has an unknown name.
        ValueError: a member has an argument in mmdet 2's form.
        FileNotFoundError: files are missing, and ``skip_missing`` is False or nothing is left.
    """

    def __init__(
        self,
        datasets: dict[str, dict],
        only: Sequence[str] | None = None,
        common: dict | None = None,
        skip_missing: bool = False,
        lazy_init: bool = False,
    ) -> None:
        members = {
            name: dict(common or {}) | dict(cfg)
            for name, cfg in datasets.items()
            if cfg is not None
        }
        if isinstance(only, str):
            raise TypeError(f'only must be a list of names, got {only!r}.')
        for name in only or ():
            if name not in members:
                near = quote_with_near(name, members)
                raise KeyError(f'The group has no dataset {near}; it has {", ".join(members)}.')
        if only is not None:
            members = {name: members[name] for name in only}
        for name, cfg in members.items():
            for args in (cfg, cfg.get('prompts') or {}):
                if wrong := explain_arguments(args):
                    raise ValueError(f'{name}: {wrong}')
        paths = {
            # as mmengine will join it
            name: os.path.join(cfg.get('data_root') or '', cfg['ann_file'])
            for name, cfg in members.items()
        }
        missing = {
            name: path for name, path in paths.items() if not lazy_init and not os.path.isfile(path)
        }
        if missing and (not skip_missing or len(missing) == len(members)):
            raise FileNotFoundError(
                f'{len(missing)} of {len(members)} datasets are missing: '
                + '; '.join(f'{name} ({path})' for name, path in missing.items())
                + '. Set skip_missing=True to leave them out of the mean.'
            )
        if missing:
            print_log(f'Left out, files missing: {", ".join(missing)}', logger='current')
        self.skipped = list(missing)
        members = {name: cfg for name, cfg in members.items() if name not in missing}
        self.names = list(members)
        self.prompt_sources = {name: _prompts(cfg) for name, cfg in members.items()}
        built = [dict(cfg, lazy_init=True) if lazy_init else cfg for cfg in members.values()]
        super().__init__(built, lazy_init=lazy_init)

    @property
    def metainfo(self) -> dict:
        """``datasets``: each member's, with ``name``, ``ann_file`` and ``size``; ``skipped``.

        Where all have one list of ``classes``, it is there, too.
        """
        if not self._fully_initialized:
            return {}
        members = [
            dict(member.metainfo, name=name, ann_file=member.ann_file, size=len(member))
            for name, member in zip(self.names, self.datasets, strict=True)
        ]
        classes = [member.get('classes') for member in members]
        one = dict(classes=classes[0]) if all(other == classes[0] for other in classes) else {}
        return dict(datasets=members, skipped=list(self.skipped), **one)

    def __getitem__(self, idx: int) -> dict:
        data = super().__getitem__(idx)
        member, _ = self._get_ori_dataset_idx(idx)
        data['data_samples'].set_metainfo(dict(dataset_name=self.names[member]))
        return data


def _prompts(cfg: dict) -> dict | None:
    """Take a member's ``prompts`` out of its config; its ``data_root`` holds for them too."""
    prompts = cfg.pop('prompts', None)
    return None if prompts is None else dict(data_root=cfg.get('data_root')) | dict(prompts)
