# The recipe of our studies, Swin-L, fine-tuned on your own COCO-format data: docs/prompt_recipe.md has the evidence.
_base_ = ['./vis_gdino_swin_l_finetune.py', './_base_/plus.py']

model = dict(
    bbox_head=dict(loss_cls=_base_.quality_loss),
    prompt_contrast=_base_.prompt_contrast,
)
