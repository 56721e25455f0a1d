# DINO-R1, Swin-T, COCO: VIS-GDINO plus Group Relative Query Optimization.
_base_ = ['./vis_gdino_swin_t_coco.py', './_base_/grqo_published.py']

model = dict(bbox_head=dict(loss_grqo=_base_.grqo))
default_hooks = dict(reference_model=_base_.reference_model)
