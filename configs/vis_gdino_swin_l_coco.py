# VIS-GDINO, Swin-L, COCO: the supervised baseline.
_base_ = [
    './_base_/plugin_runtime.py',
    './_base_/models/vis_gdino_swin_l_model.py',
    './_base_/datasets/coco_prompted.py',
    './_base_/schedules/adamw_12e.py',
]
