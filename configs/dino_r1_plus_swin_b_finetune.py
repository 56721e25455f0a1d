# What won in our studies, Swin-B, your own COCO-format data; see docs/prompt_recipe.md.
_base_ = ['./vis_gdino_swin_b_finetune.py', './_base_/plus.py']

model = dict(bbox_head=dict(loss_cls=_base_.quality_loss), prompt_contrast=_base_.prompt_contrast)
