# DINO-R1, Swin-L, COCO, from the checkpoint that dino_r1_swin_l_o365 trains.
_base_ = './dino_r1_swin_l_coco.py'

load_from = 'work_dirs/dino_r1_swin_l_o365/epoch_6.pth'
