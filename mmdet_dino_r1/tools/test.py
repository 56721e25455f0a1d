"""Test: ``mim test mmdet_dino_r1 CONFIG --checkpoint FILE``; flags are those of mmdet's script."""

from mmdet_dino_r1.tools.launch import launch

if __name__ == '__main__':
    launch('test')
