"""Writes a COCO file's boxes as a published list of exemplars (``datasets/support_list.py``)."""

import json
from pathlib import Path


def write_support_list(ann_file: Path, path: Path, images: int = 16) -> list[dict]:
    """All boxes of each class on its first images, a line for each; returns the lines."""
    coco = json.loads(ann_file.read_text())
    by_id = {image['id']: image for image in coco['images']}
    lines = []
    for category in coco['categories']:
        mine = [ann for ann in coco['annotations'] if ann['category_id'] == category['id']]
        for image_id in list(dict.fromkeys(ann['image_id'] for ann in mine))[:images]:
            boxes = [ann['bbox'] for ann in mine if ann['image_id'] == image_id]
            instances = [
                dict(bbox=[x, y, x + w, y + h], label=category['id'], category=category['name'])
                for x, y, w, h in boxes
            ]
            image = by_id[image_id]
            size = dict(height=image['height'], width=image['width'])
            entry = dict(filename=image['file_name'], **size)
            lines.append(entry | dict(detection=dict(instances=instances)))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('\n'.join(map(json.dumps, lines)) + '\n')
    return lines
