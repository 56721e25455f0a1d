# DINO-R1, Swin-B, COCO, from the checkpoint that dino_r1_swin_b_o365 trains.
_base_ = './dino_r1_swin_b_coco.py'

load_from = 'work_dirs/dino_r1_swin_b_o365/epoch_6.pth'
