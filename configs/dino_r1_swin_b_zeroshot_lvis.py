# DINO-R1, Swin-B, trained on Objects365, tested on LVIS v1 val without training on it.
_base_ = './vis_gdino_swin_b_zeroshot_lvis.py'  # GRQO changes the training, not the model
