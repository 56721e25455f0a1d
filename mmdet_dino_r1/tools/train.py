"""Train: ``mim train mmdet_dino_r1 CONFIG``; flags are those of mmdet's own train script."""

from mmdet_dino_r1.tools.launch import launch

if __name__ == '__main__':
    launch('train')
