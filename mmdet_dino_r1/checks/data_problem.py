"""Every kind of problem that a check of the data can find, and how it is put into words."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from itertools import islice
from typing import NamedTuple

from ..utils.near_names import quote_with_near, some

LEVELS = ('error', 'warning', 'note')
EXAMPLES = 3  # shown of each problem
# kind | level | one/many of what is counted, or - | what is wrong with it | remedy. An error: the
# run would fail or its numbers be worthless; a warning: data is lost or looks unintended.
_TABLE = """
not_read | note | - | {size:.0f} MB, not read before each start |
    mim run mmdet_dino_r1 check_data CONFIG reads it.
not_coco | error | - | {error} |
    Is it the right file? It must be COCO or LVIS JSON for detection, in UTF-8.
no_box | error | - | none of its {count} boxes can be used |
    Correct what is said of them here. Is it the right file?
image_id_repeated | error | image id | used more than once; only the last image is read |
    Give each image its own id.
image_file_repeated | warning | image file | listed more than once |
    Put all boxes of an image under one entry of `images`.
image_file_missing | error | image | without file_name | Add it.
image_size_missing | error | image | without width and height, which mmdet reads |
    Add both, in pixels.
category_id_repeated | error | category id | used more than once | Give each its own id.
category_name_repeated | error | category name | used more than once |
    Give each its own name, merge them, or remove the one without a box (Roboflow's root).
category_empty | warning | category/categories | of {of} without a box |
    They are neither trained nor evaluated; add boxes, or remove them.
category_unused | note | category/categories | without a box in any file: neither trained nor
    evaluated | Nothing to do, if it is a background or the root of a Roboflow export; otherwise
    add boxes.
crowds | warning | box/boxes | of {of} crowds or ignored (iscrowd or ignore is set): not trained on,
    never exemplars, and in evaluation what is found in a crowd does not count |
    Right if meant so; otherwise write iscrowd=0, and no ignore. CVAT writes iscrowd=1 for masks.
image_id_missing | error | annotation | without image_id, which every reader reads | Add it.
category_id_missing | error | annotation | without category_id, which every reader reads | Add it.
bbox_missing | error | annotation | without bbox, which every reader reads | Add it.
crowd_unclear | error | annotation | whose iscrowd or ignore is neither 0 nor 1 | Write 0 or 1.
odd | error | annotation | whose {key} mmdet's {reader} cannot read, or takes for something else |
    Set type={ours!r} instead, which reads it; or write a number, as id another one than 0.
odd_size | error | image | whose width or height is a text, which mmdet's {reader} cannot read |
    Set type={ours!r} instead, which reads it; or write a number.
annotation_id_repeated | error | annotation id | used more than once, which mmdet's {reader} refuses
    or mixes up | Set type={ours!r} instead, which numbers them anew.
not_annotated | error | - | without annotations: it can only be tested with format_only |
    To write the detections down instead of evaluating them, set format_only=True and
    outfile_prefix=PREFIX in the evaluator; take prompts from elsewhere
    (default_hooks.prompt_bank.bank).
image_unknown | warning | annotation | of an image that the file does not list |
    Remove these annotations, or add their images to `images`.
category_unknown | warning | annotation | of a category that the file does not list: dropped |
    Add their categories to `categories`.
box_not_finite | error | box/boxes | whose bbox is not four finite numbers | {form}
box_flat | warning | box/boxes | whose width or height is not positive: CocoDataset drops them |
    {form}
box_outside | warning | box/boxes | outside the image: CocoDataset drops them | {form}
box_tiny | warning | box/boxes | whose width or height is under 1 pixel: CocoDataset drops them |
    {form}
box_beyond | warning | box/boxes | reaching beyond the image by more than 1 pixel | {form}
area_flat | warning | box/boxes | whose area is not positive: CocoDataset drops them |
    Write area=width*height.
image_missing | error | image file | of {of} missing |
    data_root, data_prefix.img and file_name are joined; correct what is wrong.{so}
image_trained_on | warning | image | of {of} also in {file}, which is trained on |
    Right for a first try; what is found in them says little of images never seen.
image_broken | error | image file | that cannot be read ({why}) | Replace them{so}.
image_deep | error | image file | with {bits}-bit values, {low} to {high} in those looked at; {so} |
    Load them by dict(type='LoadScaledImage', low={low}, high={high}), or with the camera's range,
    the same in all pipelines, in place of LoadImageFromFile.
image_size_differs | error | image | of another width and height than the file says |
    Correct width and height, and the boxes if the images were resized.
image_turned | error | image | whose width and height are swapped by an EXIF orientation |
    Annotate them as they are loaded. If the boxes fit the size annotated, {so}.
image_upside_down | note | image | mirrored or turned by an EXIF orientation that no size tells |
    Right if the boxes were drawn in the pictures as they are loaded.
classes_no_list | error | - | the classes of {reader} are the text {wanted!r}, not a list |
    Write metainfo=dict(classes=({wanted!r},)), with the comma.
classes_all_unknown | error | - | none of the {count} classes of {reader} is a category of the file,
    which has {names}: every box is dropped, and AP will be 0 | {remedy}
num_classes | error | - | {count} classes to train on, but model.bbox_head.num_classes is {rows} |
    Set model.bbox_head.num_classes={count}, the size of the label embedding.
classes_unknown | error | class/classes | of {reader} not in the file{so} | {remedy}
classes_nowhere | warning | class/classes | of metainfo in none of the files |
    Right if meant so; otherwise correct the names.
classes_order | error | class/classes | of {reader} in another order in the file, which decides |
    {remedy}
categories_dropped | warning | category/categories | not among the classes of {reader}: {boxes}
    dropped | Right if meant so; otherwise correct the names.
labels_differ | error | - | {what} | {remedy}
classes_not_trained | warning | class/classes | of {of} not in {file}: found by prompts alone |
    Right if meant so; otherwise correct the names.
classes_not_evaluated | warning | class/classes | of {file} not in this file: never evaluated |
    Right if meant so; otherwise correct the names.
class_ids_differ | note | class/classes | with another id than in {file} |
    Names are matched, so it does no harm but to prompts with match='id'.
classes_without_prompt | error | class/classes | of {of} in {file} without a box here that could be
    the prompt: never detected |
    Take prompts from another file (default_hooks.prompt_bank.bank.ann_file,
    or .support for a list){or_allow}.
prompts_swapped | error | class/classes | with the id of another class of {file}, and match='id' |
    Remove match='id' from the source of the prompts.
support_broken | error | - | {error} | Correct the line.
support_flat | warning | box/boxes | without width or height inside their image: left out |
    Right if the list is to be taken as published; otherwise bbox is [x1, y1, x2, y2].
support_untested | warning | class/classes | of the list not tested in {file}: not used |
    Right if meant so; if names differ and ids do not, match them
    (default_hooks.prompt_bank.bank.match=id).
metric_of_other_images | error | image | of {file} not in this file, which {key} names |
    Set {key}={file}
metric_of_other_pictures | error | image | of another name or size in {file}, whose detections are
    compared with this file ({key}) | Set {key}={file}
metric_lacks_classes | error | class/classes | of {file} not in this file, which {key} names |
    Set {key}={file}
metric_class_order | error | class/classes | in another order than in {file}, which decides under
    mmdet's CocoMetric ({key}) | Set type='CocoJsonMetric', which goes by name, or {key}={file}
metric_of_other_boxes | warning | image | with other boxes in {file}, whose detections are compared
    with this file ({key}) | Right if meant so; otherwise set {key}={file}
"""
_KINDS = {}
for _line in _TABLE.strip().replace('\n    ', ' ').splitlines():
    _kind, *_words = _line.split(' | ')
    _KINDS[_kind] = _words


class Problem(NamedTuple):
    """Something wrong with the data."""

    level: str  # one of LEVELS
    kind: str  # a name for programs
    where: str  # the file
    what: str  # one sentence
    remedy: str = ''
    count: int = 1  # of the boxes, images or classes concerned
    examples: tuple[str, ...] = ()  # the first of them

    @property
    def is_error(self) -> bool:
        """Whether a run should not start."""
        return self.level == 'error'


def problem(
    kind: str, where: str, count: int = 1, examples: tuple = (), level: str = '', **words
) -> Problem:
    """The problem of that ``kind`` in the file ``where``; the ``words`` fill the table's text."""
    usual, counted, what, remedy = _KINDS[kind]
    words['count'] = count
    what = what.format(**words)
    if counted != '-':
        what = f'{number(count, *counted.split("/"))} {what}'
    return Problem(level or usual, kind, where, what, remedy.format(**words), count, examples)


def problems(
    kind: str, where: str, found: Collection, tell: Callable = str, level: str = '', **words
) -> list[Problem]:
    """The problem if anything was ``found``, else none; ``tell`` words an example."""
    examples = tuple(map(tell, islice(found, EXAMPLES)))
    return [problem(kind, where, len(found), examples, level, **words)] if len(found) else []


def number(count: int, one: str, many: str = '') -> str:
    """A ``count`` in words: '1 box'; by default ``many`` is ``one`` + s."""
    return f'{count} {one if count == 1 else many or one + "s"}'


def quoted(names: Sequence[str], n: int = 5) -> str:
    """The first ``n`` names, quoted, and how many more there are."""
    return some(list(map(repr, names)), n)


def meant(known: Iterable[str]) -> Callable[[str], str]:
    """A function that quotes a name, with the known one that was probably meant."""
    return partial(quote_with_near, known=list(known), n=1, cutoff=0.7)


def report_problems(found: Sequence[Problem], config: str) -> str:
    """All problems of a config's data in one message, each with examples and remedy."""
    counts = {level: sum(p.level == level for p in found) for level in LEVELS}
    said = ', '.join(number(count, level) for level, count in counts.items() if count)
    lines = [f'the data of {config}: {said or "no problem found"}.']
    for item in found:
        lines.append(f'  {item.level}: {item.where}: {item.what}')
        if item.examples:
            more = ', …' if item.count > len(item.examples) else ''
            lines.append(f'    {", ".join(item.examples)}{more}')
        lines.append(f'    Remedy: {item.remedy}')
    return '\n'.join(lines)
