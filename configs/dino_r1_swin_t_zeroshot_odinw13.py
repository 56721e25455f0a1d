# DINO-R1, Swin-T, trained on Objects365, tested on ODinW13 without training on it.
_base_ = './vis_gdino_swin_t_zeroshot_odinw13.py'  # GRQO changes the training, not the model
