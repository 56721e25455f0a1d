"""A COCO dataset that takes its classes from its own annotation file."""

import copy
import json
import logging
from collections.abc import Sequence
from math import isfinite
from typing import Any

from mmdet.datasets import CocoDataset
from mmdet.datasets.api_wrappers import COCO
from mmdet.registry import DATASETS
from mmengine.logging import print_log

from ..config.dataset_args import explain_arguments
from ..structures.named_rows import repeated_names
from ..utils.near_names import quote_with_near

# the lists of a COCO file, and what each entry of them must have
_KEYS = dict(images=('id',), annotations=(), categories=('id', 'name'))


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

    Reading ``metainfo`` reads the file. Boxes that are not finite are left out, as mmdet leaves out
    flat ones and those outside the image.

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
        ValueError: the file is not COCO JSON, names a category twice, numbers annotations alike,
            lacks a class that is asked for, has an entry without a key that is needed, or has no
            image that is kept; or an argument is in mmdet 2's form.
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
        """Meta information, with ``classes`` in label order."""
        if not self._fully_initialized and not self._loading:
            self.full_init()
        return copy.deepcopy(self._metainfo)

    def _join_prefix(self) -> None:
        """As the parent; ValueError for arguments that it cannot read."""
        given = dict(ann_file=self.ann_file, data_prefix=self.data_prefix, metainfo=self._metainfo)
        kind = type(self).__name__
        if wrong := explain_arguments(given | dict(type=kind)):
            raise ValueError(f'{kind}: {wrong}')
        super()._join_prefix()

    def load_data_list(self) -> list[dict]:
        """Read the file and settle the classes; ValueError without images, or with ids twice."""
        self._loading = True
        try:
            data_list = super().load_data_list()
        except AssertionError as error:  # of mmdet, where annotation ids repeat
            raise ValueError(str(error)) from error
        finally:
            self._loading = False
        if not data_list:
            raise ValueError(f'{self.ann_file} lists no image.')
        if self.test_mode if self.sort_by_size is None else self.sort_by_size:
            data_list.sort(key=lambda info: (info['height'], info['width']))  # stable
        return data_list

    def parse_data_info(self, raw_data_info: dict) -> dict | list[dict]:
        """As the parent, with LVIS's file names and finite boxes; ValueError for a bad entry."""
        image, anns = raw_data_info['raw_img_info'], raw_data_info['raw_ann_info']
        try:
            image['file_name'] = image_file(image)
            anns = [ann for ann in anns if all(map(isfinite, ann['bbox']))]
            return super().parse_data_info(dict(raw_img_info=image, raw_ann_info=anns))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            what = f'lacks {error}' if isinstance(error, KeyError) else f'is wrong: {error}'
            raise ValueError(
                f'{self.ann_file}: image {image["id"]}, or an annotation of it, {what}. '
                'mim run mmdet_dino_r1 check_data CONFIG lists all such entries.'
            ) from error

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
                raise ValueError(f'{path}: a step of the pipeline fails: {reason}') from error
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

    def COCOAPI(self, local_path: str) -> COCO:  # noqa: N802
        """Stands in for mmdet's class attribute, which opens the file; ValueError if it is unfit.

        The one place between parsing the file, which may take seconds, and looking up its classes.
        """
        try:
            api = COCO(local_path)
        except (ValueError, AssertionError) as error:
            # broken JSON or text; pycocotools asserts that it is a dict
            raise ValueError(f'{self.ann_file} is not COCO JSON: {error}') from error
        except (AttributeError, KeyError, TypeError) as error:  # from its index of the entries
            what = f'an entry lacks {error}' if isinstance(error, KeyError) else str(error)
            raise ValueError(f'{self.ann_file} is not a COCO annotation file: {what}') from error
        check_coco(api.dataset, self.ann_file)
        names = [cat['name'] for cat in api.dataset['categories']]
        wanted = self._metainfo.get('classes')
        if wanted is None and self.fixed_classes:
            raise ValueError(f'{self.ann_file}: fixed_classes=True needs metainfo=dict(classes=…).')
        if wanted is not None:
            may_lack = self.fixed_classes and not set(names).isdisjoint(wanted)
            check_classes(wanted, wanted if may_lack else names, self.ann_file)
            if self.fixed_classes and not self.test_mode:
                # as if the file listed these classes, in their order
                cat_of = {name: dict(id=f'no {name}', name=name) for name in wanted}
                cat_of |= {cat['name']: cat for cat in api.dataset['categories']}
                api.dataset['categories'] = [cat_of[name] for name in wanted]
                names = list(wanted)
            kept = set(wanted)
            names = [name for name in names if name in kept]
            palette = self._metainfo.get('palette')
            if palette is not None and len(palette) == len(wanted):
                colours = dict(zip(wanted, palette, strict=True))
                self._metainfo['palette'] = [colours[name] for name in names]
        self._metainfo['classes'] = tuple(names)
        return api


def image_file(image: dict) -> str:
    """Path of an entry of ``images`` below the image folder; ValueError where it names none.

    LVIS draws on both splits of COCO, and the split of an image stands only in its ``coco_url``
    (``http://images.cocodataset.org/train2017/x.jpg``), whatever its ``file_name`` says.
    """
    is_lvis = 'neg_category_ids' in image
    by_url = 'coco_url' in image and (is_lvis or 'file_name' not in image)
    name = image.get('coco_url' if by_url else 'file_name')
    if name is None:
        raise ValueError(f'Image {image.get("id", "?")} has neither file_name nor coco_url.')
    if not isinstance(name, str):
        raise ValueError(f'Image {image.get("id", "?")} has a file name that is no text: {name!r}.')
    return '/'.join(name.split('/')[-2:]) if by_url else name


def parse_coco(content: bytes, ann_file: str, unique_names: bool = True) -> dict:
    """The content of a COCO or LVIS file after :func:`check_coco`; ValueError where it is none."""
    try:
        coco = json.loads(content)
    except ValueError as error:  # bytes that are no text, too
        raise ValueError(f'{ann_file} is not COCO JSON: {error}') from error
    check_coco(coco, ann_file, unique_names)
    return coco


def check_coco(coco: Any, ann_file: str, unique_names: bool = True) -> None:
    """ValueError where a parsed file lacks lists, ids or names, or names a category twice."""
    no_coco = f'{ann_file} is not a COCO annotation file'
    lacking = [repr(key) for key in _KEYS if not isinstance(coco, dict) or key not in coco]
    if lacking:
        raise ValueError(f'{no_coco}: it has no {", ".join(lacking)}.')
    for key, needed in _KEYS.items():
        if mistake := _wrong_entries(coco[key], needed):
            raise ValueError(f'{no_coco}: {key!r} {mistake}.')
    twice = repeated_names([cat['name'] for cat in coco['categories']]) if unique_names else []
    if twice:
        names = ', '.join(map(repr, twice))
        raise ValueError(
            f'{ann_file} names categories more than once: {names}. Give each its own name.'
        )


def _wrong_entries(entries: Any, needed: Sequence[str]) -> str | None:
    """What no reader can do with; ids are numbers or text, all of one kind, and names text."""
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        return 'is no list of {…}'
    for key in needed:
        kinds = [str] if key == 'name' else [int, float, str]
        values = [entry.get(key) for entry in entries]
        wrong = [value for value in values if type(value) not in kinds]
        if wrong:
            return f'has an entry with {key}={wrong[0]!r}'
        if len({type(value) is str for value in values}) > 1:
            return f'has numbers and text as {key}'
    return None


def check_classes(wanted: Sequence[str], names: Sequence[str], ann_file: str) -> None:
    """ValueError where a name wanted is not among the file's, or is wanted twice."""
    if isinstance(wanted, str):
        raise ValueError(f'classes must be a list of names, got {wanted!r}.')
    if len(set(wanted)) < len(wanted):
        raise ValueError(f'classes must not repeat a name, got {list(wanted)}.')
    known = set(names)
    if lacking := [quote_with_near(name, names) for name in wanted if name not in known]:
        many = f'{", ".join(lacking)}; it has {len(names)}'
        raise ValueError(f'{ann_file} has no categories named {many}.')
