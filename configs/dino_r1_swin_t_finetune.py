# DINO-R1, Swin-T, fine-tuned on your own COCO-format data; see "Your own data" in README.md.
_base_ = ['./vis_gdino_swin_t_finetune.py', './_base_/grqo_published.py']

model = dict(bbox_head=dict(loss_grqo=_base_.grqo))
default_hooks = dict(reference_model=_base_.reference_model)
