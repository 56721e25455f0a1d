"""A COCO dataset that takes its classes from its own annotation file."""

import copy
from collections import Counter
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from mmdet.datasets import CocoDataset
from mmdet.datasets.api_wrappers import COCO
from mmdet.registry import DATASETS

_KEYS = ('images', 'annotations', 'categories')


@DATASETS.register_module()
class CocoJsonDataset(CocoDataset):
    """Any COCO-format annotation file, without a list of classes.

    Differs from mmdet's ``CocoDataset``, whose labels follow the file's order
    of categories whatever ``classes`` says, and which drops categories whose
    names it does not find without a word:

    - Without ``metainfo=dict(classes=...)`` the classes are those of the
      file. Prompted detection needs no other list.
    - With it, only those classes are kept, and one that the file lacks is an
      error.
    - ``dataset.metainfo['classes'][label]`` is always the name of ``label``,
      in the file's order; a ``palette`` given beside ``classes`` follows.
      ``CocoMetric`` and the visualiser rely on that.

    The classes are known once the file is read; reading ``metainfo`` before
    (``lazy_init=True``) reads it.

    LVIS files will do as well; see :func:`image_file`.

    Args:
        *args: As for ``CocoDataset``.
        sort_by_size (bool, optional): Order the images by height and width,
            as annotated, so that ``SameSizeBatchSampler`` finds full batches.
            ``None``: in test mode.
        **kwargs: As for ``CocoDataset``; ``metainfo`` may be left out.

    Raises:
        ValueError: If the file is not COCO JSON, names a category twice, or
            lacks a class that is asked for.
    """

    # No classes of its own: mmdet's would be COCO's 80, with their palette.
    METAINFO: dict = dict()
    # True while `load_data_list` runs, which asks for `metainfo` itself.
    _loading = False

    def __init__(self, *args, sort_by_size: bool | None = None, **kwargs) -> None:
        self.sort_by_size = sort_by_size
        super().__init__(*args, **kwargs)

    @property
    def metainfo(self) -> dict:
        """Meta information, with ``classes`` in label order."""
        if not self._fully_initialized and not self._loading:
            self.full_init()
        return copy.deepcopy(self._metainfo)

    def load_data_list(self) -> list[dict]:
        """Read the annotation file, settling the classes on the way."""
        self._loading = True
        try:
            data_list = super().load_data_list()
        finally:
            self._loading = False
        if self.test_mode if self.sort_by_size is None else self.sort_by_size:
            data_list.sort(key=lambda info: (info['height'], info['width']))  # stable
        return data_list

    def parse_data_info(self, raw_data_info: dict) -> dict | list[dict]:
        """As the parent does, with LVIS's way of naming image files."""
        image = raw_data_info['raw_img_info']
        image['file_name'] = image_file(image)
        return super().parse_data_info(raw_data_info)

    def COCOAPI(self, local_path: str) -> COCO:  # noqa: N802
        """Stands in for mmdet's class attribute, which opens the file.

        The one place between parsing the file, which may take seconds, and
        looking up the classes in it.

        Raises:
            ValueError: If the file is not COCO JSON, names a category twice,
                or lacks a class that is asked for.
        """
        try:
            api = COCO(local_path)
        except (ValueError, AssertionError) as error:
            # broken JSON or text; pycocotools asserts that it is a dict
            raise ValueError(f'{self.ann_file} is not COCO JSON: {error}') from error
        check_coco(api.dataset, self.ann_file)
        names = [cat['name'] for cat in api.dataset['categories']]
        wanted = self._metainfo.get('classes')
        if wanted is not None:
            check_classes(wanted, names, self.ann_file)
            kept = set(wanted)
            names = [name for name in names if name in kept]
            palette = self._metainfo.get('palette')
            if palette is not None and len(palette) == len(wanted):
                colours = dict(zip(wanted, palette, strict=True))
                self._metainfo['palette'] = [colours[name] for name in names]
        self._metainfo['classes'] = tuple(names)
        return api


def image_file(image: dict) -> str:
    """Path of an image of a COCO or LVIS file below the image folder.

    LVIS draws on both splits of COCO, and the split of an image stands only in its ``coco_url``
    (``http://images.cocodataset.org/train2017/x.jpg``), even where somebody inserted a
    ``file_name``.

    Args:
        image (dict): An entry of ``images``.

    Raises:
        ValueError: If it has neither.
    """
    is_lvis = 'neg_category_ids' in image
    if 'coco_url' in image and (is_lvis or 'file_name' not in image):
        return '/'.join(image['coco_url'].split('/')[-2:])
    if 'file_name' not in image:
        raise ValueError(f'Image {image.get("id", "?")} has neither file_name nor coco_url.')
    return image['file_name']


def check_coco(coco: Any, ann_file: str, unique_names: bool = True) -> None:
    """Check the form of a parsed COCO or LVIS annotation file.

    Args:
        coco (Any): What was parsed.
        ann_file (str): The file's name in messages.
        unique_names (bool): Whether category names must differ.

    Raises:
        ValueError: If it lacks a top-level key or names a category twice.
    """
    lacking = [key for key in _KEYS if not isinstance(coco, dict) or key not in coco]
    if lacking:
        raise ValueError(
            f'{ann_file} is not a COCO annotation file: it has no {", ".join(map(repr, lacking))}.'
        )
    if not unique_names:
        return
    counts = Counter(cat['name'] for cat in coco['categories'])
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise ValueError(
            f'{ann_file} names categories more than once: '
            f'{", ".join(map(repr, twice))}. Give each its own name.'
        )


def check_classes(wanted: Sequence[str], names: Sequence[str], ann_file: str) -> None:
    """Check that every class wanted is a category of the file.

    Args:
        wanted (Sequence[str]): Names asked for.
        names (Sequence[str]): Names of the file.
        ann_file (str): The file's name in messages.

    Raises:
        ValueError: If some are missing, naming them and the nearest the file
            has; if one is wanted twice.
    """
    if isinstance(wanted, str):
        raise ValueError(f'classes must be a list of names, got {wanted!r}.')
    if len(set(wanted)) < len(wanted):
        raise ValueError(f'classes must not repeat a name, got {list(wanted)}.')
    known = set(names)
    lacking = [name for name in wanted if name not in known]
    if not lacking:
        return
    hints = []
    for name in lacking:
        nearest = get_close_matches(name, names, n=3, cutoff=0.5)
        hints.append(
            repr(name) + (f' (nearest: {", ".join(map(repr, nearest))})' if nearest else '')
        )
    raise ValueError(f'{ann_file} has no categories named {", ".join(hints)}; it has {len(names)}.')
