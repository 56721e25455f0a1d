"""Arguments of a dataset in the form of mmdet 2, which mmdet 3 passes over or stumbles upon."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# what people call the classes and the palette in metainfo, in small letters
_MEANT = dict.fromkeys(('class', 'class_names', 'classnames', 'categories', 'names'), 'classes')
_MEANT |= dict(classes='classes', palette='palette')


def explain_arguments(args: Mapping[str, Any]) -> str | None:
    """What is wrong with ``ann_file``, ``data_prefix`` or ``metainfo``, and the right form."""
    ann_file, prefix = args.get('ann_file'), args.get('data_prefix')
    metainfo = args.get('metainfo')
    if isinstance(ann_file, (list, tuple)):
        members = ', '.join(f'dict(common, ann_file={file!r})' for file in ann_file)
        return (
            f'ann_file={list(ann_file)} is a list, and a dataset reads one file. Write '
            f"dict(type='ConcatDataset', datasets=[{members}]), where common = dict(…) has the "
            'other arguments of this dataset.'
        )
    if isinstance(prefix, (str, list, tuple)):
        right = prefix if isinstance(prefix, str) else 'images/'
        return f'data_prefix={prefix!r} is no dict. Write data_prefix=dict(img={right!r}).'
    for key, value in metainfo.items() if isinstance(metainfo, Mapping) else ():
        right = _MEANT.get(str(key).lower(), key)
        there = metainfo.get(right)
        if key != right and (there is None or (key.lower() == right and [*there] != [*value])):
            return (
                f'metainfo=dict({key}=…) is read by nothing in mmdet 3. '
                f'Write metainfo=dict({right}=…).'
            )
    return None
