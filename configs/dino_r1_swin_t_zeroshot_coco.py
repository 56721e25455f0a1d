# DINO-R1, Swin-T, trained on Objects365, tested on COCO val2017 without training on it.
_base_ = './vis_gdino_swin_t_zeroshot_coco.py'  # GRQO changes the training, not the model
