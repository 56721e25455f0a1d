# PET-DINO, Swin-T: its published weights, tested on ODinW13 without training on it.
_base_ = [
    './_base_/models/pet_dino_swin_t_model.py',
    './_base_/benchmarks/odinw13.py',
]
