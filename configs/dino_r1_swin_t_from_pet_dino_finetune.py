# DINO-R1, Swin-T, on your own COCO-format data, from PET-DINO's weights: its model plus GRQO.
_base_ = ['./pet_dino_swin_t_finetune.py', './_base_/grqo_published.py']

model = dict(bbox_head=dict(loss_grqo=_base_.grqo))
default_hooks = dict(reference_model=_base_.reference_model)
