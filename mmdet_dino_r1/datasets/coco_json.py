"""A COCO dataset that takes its classes from its own annotation file."""

import copy
import logging
from pathlib import Path
from typing import Any

from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS
from mmengine.logging import print_log

from ..config.mmdet_2 import explain_arguments
from ..structures.coco_file import CocoIndex, check_classes, read_coco


@DATASETS.register_module()
class CocoJsonDataset(CocoDataset):
    """Any COCO-format annotation file, LVIS's too, without a list of classes.

    mmdet's ``CocoDataset`` labels in the file's order of categories whatever ``classes`` says, and
    drops without a word those whose names it does not find. Here:

    - Without ``metainfo=dict(classes=...)`` the classes are those of the file.
    - With it, only those classes are kept, and one that the file lacks is an error. With
      ``fixed_classes`` labels are positions in it, so that files of other classes, given the same
      list, can be trained on as one.
    - ``dataset.metainfo['classes'][label]`` is always the name of ``label``, as ``CocoMetric`` and
      the visualiser expect; a ``palette`` given beside ``classes`` follows. Without
      ``fixed_classes`` the order is the file's.

    Reading ``metainfo`` reads the file, as ``structures/coco_file.py`` tells. In test mode it may
    lack ``annotations``, as files of test sets do.

    Args:
        *args: as for ``CocoDataset``.
        sort_by_size: order the images by height and width, as annotated, so that
            ``SameSizeBatchSampler`` finds full batches. None: in test mode.
        skip_unreadable: in training, take another image at random for one that cannot be read,
            with a warning, instead of stopping.
        fixed_classes: in training, labels follow ``metainfo``'s order of classes, and those that
            the file lacks keep their place. In test mode, whose metrics read the file's order, they
            are left out.
        **kwargs: as for ``CocoDataset``; ``metainfo`` may be left out.

    Raises:
        ValueError: the file is not COCO JSON, names a category twice, lacks a class that is asked
            for, has an entry without a key that is needed, or has no image that is kept; or an
            argument is in mmdet 2's form.
    """

    # No classes of its own: mmdet's would be COCO's 80, with their palette.
    METAINFO: dict = dict()
    # True while `load_data_list` runs, which asks for `metainfo` itself.
    _loading = False

    def __init__(
        self,
        *args,
        sort_by_size: bool | None = None,
        skip_unreadable: bool = False,
        fixed_classes: bool = False,
        **kwargs,
    ) -> None:
        self.sort_by_size = sort_by_size
        self.skip_unreadable = skip_unreadable
        self.fixed_classes = fixed_classes
        super().__init__(*args, **kwargs)

    @property
    def metainfo(self) -> dict:
        """Meta information, with ``classes`` in label order.

        Where a dataset with ``lazy_init`` has no file, it lacks ``classes``, and their ``palette``:
        mmdet's inference builds one to look for a palette, and has the classes of the checkpoint.
        """
        if not self._fully_initialized and not self._loading:
            try:
                self.full_init()
            except FileNotFoundError:
                order_unknown = {'classes', 'palette'}
                known = {k: v for k, v in self._metainfo.items() if k not in order_unknown}
                return copy.deepcopy(known)
        return copy.deepcopy(self._metainfo)

    def _join_prefix(self) -> None:
        """As the parent; ValueError for arguments that it cannot read."""
        given = dict(ann_file=self.ann_file, data_prefix=self.data_prefix, metainfo=self._metainfo)
        kind = type(self).__name__
        if wrong := explain_arguments(given | dict(type=kind)):
            raise ValueError(f'{kind}: {wrong}')
        super()._join_prefix()

    def load_data_list(self) -> list[dict]:
        """Read the file and settle the classes; ValueError without images."""
        self._loading = True
        try:
            data_list = super().load_data_list()
        finally:
            self._loading = False
        if not data_list:
            raise ValueError(f'{self.ann_file} lists no image.')
        if self.test_mode if self.sort_by_size is None else self.sort_by_size:
            data_list.sort(key=lambda info: (info['height'], info['width']))  # stable
        return data_list

    def filter_data(self) -> list[dict]:
        """As the parent does; ValueError where no image is left."""
        kept = super().filter_data()
        if not kept:
            raise ValueError(
                f'{self.ann_file}: filter_cfg={self.filter_cfg} leaves none of its '
                f'{len(self.data_list)} images.'
            )
        return kept

    def prepare_data(self, idx: int) -> Any:
        """What the pipeline packs, None for an image to be skipped; ValueError if it fails."""
        info = self.get_data_info(idx)
        path = info['img_path']
        try:
            return self.pipeline(info)
        except Exception as error:  # each decoder has its own, and few name the file
            reason = ' '.join(str(error).split())  # in one line
            if 'img' in info:
                what = f'{type(error).__name__}: {reason}'  # of a KeyError the latter is the key
                raise ValueError(f'{path}: a step of the pipeline fails: {what}') from error
            if self.skip_unreadable and not self.test_mode:
                said = f'{path} cannot be read as an image, another one is taken: {reason}'
                print_log(said, 'current', logging.WARNING)
                return None
            raise ValueError(
                f'{path} cannot be read as an image: {reason}. Replace it, or remove it from '
                f'{self.ann_file}; mim run mmdet_dino_r1 check_data CONFIG --images finds all such '
                'files. skip_unreadable=True in the config of the dataset leaves them out of '
                'training.'
            ) from error

    def COCOAPI(self, local_path: str) -> CocoIndex:  # noqa: N802
        """Stands in for mmdet's class attribute, which opens the file; ValueError if it is unfit.

        The one place between reading the file, which may take seconds, and looking up its classes.
        """
        coco = read_coco(Path(local_path).read_bytes(), self.ann_file, annotated=not self.test_mode)
        names = [cat['name'] for cat in coco['categories']]
        wanted = self._metainfo.get('classes')
        if wanted is None and self.fixed_classes:
            raise ValueError(f'{self.ann_file}: fixed_classes=True needs metainfo=dict(classes=…).')
        if wanted is not None:
            may_lack = self.fixed_classes and not set(names).isdisjoint(wanted)
            check_classes(wanted, wanted if may_lack else names, self.ann_file)
            if self.fixed_classes and not self.test_mode:
                # as if the file listed these classes, in their order
                cat_of = {name: dict(id=f'no {name}', name=name) for name in wanted}
                cat_of |= {cat['name']: cat for cat in coco['categories']}
                coco['categories'] = [cat_of[name] for name in wanted]
                names = list(wanted)
            kept = set(wanted)
            names = [name for name in names if name in kept]
            palette = self._metainfo.get('palette')
            if palette is not None and len(palette) == len(wanted):
                colours = dict(zip(wanted, palette, strict=True))
                self._metainfo['palette'] = [colours[name] for name in names]
        self._metainfo['classes'] = tuple(names)
        return CocoIndex(coco)
