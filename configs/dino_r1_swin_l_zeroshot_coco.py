# DINO-R1, Swin-L, trained on Objects365, tested on COCO val2017 without training on it.
_base_ = './vis_gdino_swin_l_zeroshot_coco.py'  # GRQO changes the training, not the model
