# DINO-R1, Swin-L, COCO, from PET-DINO's weights: its model plus GRQO.
_base_ = [
    './_base_/plugin_runtime.py',
    './_base_/models/pet_dino_swin_l_model.py',
    './_base_/datasets/coco_prompted.py',
    './_base_/schedules/adamw_12e.py',
    './_base_/grqo_published.py',
]

model = dict(bbox_head=dict(loss_grqo=_base_.grqo))
default_hooks = dict(reference_model=_base_.reference_model)
load_from = 'checkpoints/pet_dino_swin_l.pth'  # fetched by hand: docs/weights.md
