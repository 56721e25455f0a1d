# DINO-R1, Swin-B, trained on Objects365, tested on LVIS-minival without training on it.
_base_ = './vis_gdino_swin_b_zeroshot_lvis_minival.py'  # GRQO changes the training, not the model
