# DINO-R1 on the hard shapes set: VIS-GDINO plus GRQO, with the published weights.
_base_ = ['./vis_gdino_r18_shapes_hard.py', './_base_/grqo_published.py']

model = dict(bbox_head=dict(loss_grqo=_base_.grqo))
default_hooks = dict(reference_model=_base_.reference_model)
