# DINO-R1, Swin-B, trained on Objects365, tested on ODinW35 without training on it.
_base_ = './vis_gdino_swin_b_zeroshot_odinw35.py'  # GRQO changes the training, not the model
