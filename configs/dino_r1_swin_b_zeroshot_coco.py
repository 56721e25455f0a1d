# DINO-R1, Swin-B, trained on Objects365, tested on COCO val2017 without training on it.
_base_ = './vis_gdino_swin_b_zeroshot_coco.py'  # GRQO changes the training, not the model
