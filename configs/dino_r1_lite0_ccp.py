# DINO-R1 on street photographs with garments: VIS-GDINO plus GRQO, with the published weights.
_base_ = ['./vis_gdino_lite0_ccp.py', './_base_/grqo_published.py']

model = dict(bbox_head=dict(loss_grqo=_base_.grqo))
default_hooks = dict(reference_model=_base_.reference_model)
