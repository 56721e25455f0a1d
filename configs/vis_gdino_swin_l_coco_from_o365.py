# VIS-GDINO, Swin-L, COCO, from the checkpoint that vis_gdino_swin_l_o365 trains.
_base_ = './vis_gdino_swin_l_coco.py'

load_from = 'work_dirs/vis_gdino_swin_l_o365/epoch_6.pth'
