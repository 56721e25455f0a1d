# VIS-GDINO, Swin-B, pre-training on Objects365 v1: 6 epochs, supervised.
_base_ = [
    './_base_/plugin_runtime.py',
    './_base_/models/vis_gdino_swin_b_model.py',
    './_base_/datasets/o365v1_prompted.py',
    './_base_/schedules/adamw_6e.py',
]

model = dict(bbox_head=dict(num_classes=365))
default_hooks = dict(prompt_bank=dict(bank=_base_.coco_prompts))
