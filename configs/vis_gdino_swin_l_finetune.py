# VIS-GDINO, Swin-L, fine-tuned on your own COCO-format data; see "Your own data" in README.md.
_base_ = [
    './_base_/plugin_runtime.py',
    './_base_/models/vis_gdino_swin_l_model.py',
    './_base_/datasets/custom_prompted.py',
    './_base_/schedules/adamw_12e.py',
]

model = dict(bbox_head=dict(num_classes=365))  # or more: at least as many as your classes
# starts from MM Grounding DINO; None: from the ImageNet backbone
load_from = (
    'https://download.openmmlab.com/mmdetection/v3.0/mm_grounding_dino/'
    'grounding_dino_swin-l_pretrain_obj365_goldg/'
    'grounding_dino_swin-l_pretrain_obj365_goldg-34dcdc53.pth'
)
