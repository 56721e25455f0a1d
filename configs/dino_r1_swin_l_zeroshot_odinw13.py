# DINO-R1, Swin-L, trained on Objects365, tested on ODinW13 without training on it.
_base_ = './vis_gdino_swin_l_zeroshot_odinw13.py'  # GRQO changes the training, not the model
