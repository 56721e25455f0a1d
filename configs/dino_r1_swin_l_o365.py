# DINO-R1, Swin-L, pre-training on Objects365 v1: one epoch supervised, then five with GRQO.
_base_ = ['./vis_gdino_swin_l_o365.py', './_base_/grqo_published.py']
start_epoch = 1

model = dict(bbox_head=dict(loss_grqo=_base_.grqo))
default_hooks = dict(reference_model=dict(type='ReferenceModelHook', start_epoch=start_epoch))
