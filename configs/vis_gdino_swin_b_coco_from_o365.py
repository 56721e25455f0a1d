# VIS-GDINO, Swin-B, COCO, from the checkpoint that vis_gdino_swin_b_o365 trains.
_base_ = './vis_gdino_swin_b_coco.py'

load_from = 'work_dirs/vis_gdino_swin_b_o365/epoch_6.pth'
