# What won in our studies, Swin-T, COCO; see docs/prompt_recipe.md.
_base_ = ['./vis_gdino_swin_t_coco.py', './_base_/plus.py']

model = dict(bbox_head=dict(loss_cls=_base_.quality_loss), prompt_contrast=_base_.prompt_contrast)
