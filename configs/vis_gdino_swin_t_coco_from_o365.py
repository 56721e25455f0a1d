# VIS-GDINO, Swin-T, COCO, from the checkpoint that vis_gdino_swin_t_o365 trains.
_base_ = './vis_gdino_swin_t_coco.py'

load_from = 'work_dirs/vis_gdino_swin_t_o365/epoch_6.pth'
