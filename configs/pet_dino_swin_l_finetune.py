# PET-DINO, Swin-L, fine-tuned on your own COCO-format data; see "Your own data" in README.md.
_base_ = [
    './_base_/plugin_runtime.py',
    './_base_/models/pet_dino_swin_l_model.py',
    './_base_/datasets/custom_prompted.py',
    './_base_/schedules/adamw_12e.py',
]

load_from = 'checkpoints/pet_dino_swin_l.pth'  # fetched by hand: docs/weights.md
