# VIS-GDINO, Swin-B, trained on Objects365, tested on ODinW35 without training on it.
_base_ = [
    './_base_/models/vis_gdino_swin_b_model.py',
    './_base_/benchmarks/odinw35.py',
]
model = dict(bbox_head=dict(num_classes=365))  # as Objects365 v1 trained it
