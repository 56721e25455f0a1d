# PET-DINO, Swin-T: its published weights, tested on LVIS v1 val without training on it.
_base_ = [
    './_base_/models/pet_dino_swin_t_model.py',
    './_base_/benchmarks/lvis_val.py',
]

model = dict(test_cfg=_base_.many_classes)
