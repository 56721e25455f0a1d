# PET-DINO, Swin-L: its published weights, tested on ODinW13 without training on it.
_base_ = [
    './_base_/models/pet_dino_swin_l_model.py',
    './_base_/benchmarks/odinw13.py',
]
