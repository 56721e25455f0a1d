"""Arguments of a dataset that mmdet 3 passes over or stumbles upon; mmdet 2 took most of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# what people call the classes and the palette in metainfo, in small letters
_MEANT = dict.fromkeys(('class', 'class_names', 'classnames', 'categories', 'names'), 'classes')
_MEANT |= dict(classes='classes', palette='palette')


def explain_arguments(args: Mapping[str, Any]) -> str | None:
    """What is wrong with ``ann_file``, ``data_prefix`` or ``metainfo``, and the right form.

    ``args`` are those of a dataset with its ``type``, or of a source of exemplars, without.
    """
    ann_file, prefix = args.get('ann_file'), args.get('data_prefix')
    metainfo = args.get('metainfo')
    if isinstance(ann_file, (list, tuple)):
        members = ', '.join(f'dict(common, ann_file={file!r})' for file in ann_file)
        return (
            f'ann_file={list(ann_file)} is a list, and a dataset reads one file. Write '
            f"dict(type='ConcatDataset', datasets=[{members}]), where common = dict(…) has the "
            'other arguments of this dataset.'
        )
    kind = getattr(args.get('type'), '__name__', str(args.get('type'))).rpartition('.')[2]
    needs_folder = kind in ('CocoDataset', 'CocoJsonDataset') or (kind == 'None' and prefix)
    folders = prefix if isinstance(prefix, Mapping) else {}
    lacks_folder = needs_folder and not isinstance(folders.get('img'), str)
    if lacks_folder or isinstance(prefix, (str, list, tuple)):
        right = prefix if isinstance(prefix, str) else folders.get('img_path') or 'images/'
        return f'data_prefix={prefix!r} is no dict(img=…). Write data_prefix=dict(img={right!r}).'
    for key, value in metainfo.items() if isinstance(metainfo, Mapping) else ():
        right = _MEANT.get(str(key).lower(), key)
        there = metainfo.get(right)
        if key != right and (there is None or (key.lower() == right and [*there] != [*value])):
            return (
                f'metainfo=dict({key}=…) is read by nothing in mmdet 3. '
                f'Write metainfo=dict({right}=…).'
            )
    return None
