# What won in our studies, Swin-T, pre-training on Objects365 v1; see docs/prompt_recipe.md.
_base_ = ['./vis_gdino_swin_t_o365.py', './_base_/plus.py']

model = dict(bbox_head=dict(loss_cls=_base_.quality_loss), prompt_contrast=_base_.prompt_contrast)
