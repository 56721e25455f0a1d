# VIS-GDINO, Swin-B, COCO: the supervised baseline.
_base_ = [
    './_base_/plugin_runtime.py',
    './_base_/models/vis_gdino_swin_b_model.py',
    './_base_/datasets/coco_prompted.py',
    './_base_/schedules/adamw_12e.py',
    './_base_/text_alignment_published.py',
]

model = dict(text_alignment=_base_.text_alignment)
default_hooks = dict(text_alignment=_base_.text_alignment_hook)
