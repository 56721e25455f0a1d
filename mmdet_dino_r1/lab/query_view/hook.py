"""Pictures of the queries of a few images, at every validation of a training."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import mmcv
from mmdet.registry import HOOKS
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from ...utils.wrappers import unwrapped


@HOOKS.register_module()
class QueryViewHook(Hook):
    """Shows how training moves the queries: a picture of each of some fixed images.

    After a validation the model runs once more on these images, with the weights (those of the
    EMA, where there is one) and the prompt bank of the validation. Each picture goes to all
    backends of the run's visualiser, as ``queries_<image id>``, and to
    ``<log dir>/query_views/iter_<N>/<image id>.png``. The validation set must be a single dataset;
    under Visual-I, which has no bank, nothing is drawn.

    Args:
        interval: validations from one picture to the next.
        num_images: this many images, evenly spread over the validation set.
        image_ids: these images instead.

    Raises:
        ValueError: ``interval`` is not positive, or, in training, the validation set is a group.
    """

    # before EMAHook (NORMAL) puts the training's own weights back
    priority = 'ABOVE_NORMAL'

    def __init__(
        self, interval: int = 1, num_images: int = 2, image_ids: Sequence[int | str] | None = None
    ) -> None:
        if interval < 1:
            raise ValueError(f'QueryViewHook.interval must be at least 1, got {interval}')
        self.interval = interval
        self.num_images = num_images
        self.image_ids = image_ids
        self._validations = 0

    def before_train(self, runner: Runner) -> None:
        """Refuse what could not be drawn, before hours of training."""
        from .collect import refuse_group

        if runner.val_loop is not None:
            refuse_group(runner.val_loop.dataloader.dataset)

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Draw, on the main process."""
        self._validations += 1
        if self._validations % self.interval or not is_main_process():
            return
        model = unwrapped(runner.model)
        if not model.prompt_banks:
            why = 'QueryViewHook drew nothing: the validation had no prompt bank.'
            print_log(why, logger='current', level=logging.WARNING)
            return
        # here: the package registers this hook, and its import is to stay fast
        from ..figure import write_image
        from .collect import view_dataset
        from .figure import draw_queries

        dataset = runner.val_dataloader.dataset
        folder = Path(runner.log_dir) / 'query_views' / f'iter_{runner.iter}'
        for view in view_dataset(model, dataset, self.num_images, self.image_ids):
            image = mmcv.imread(view.image_path, channel_order='rgb')
            figure = draw_queries(image, {f'iteration {runner.iter}': view})
            write_image(folder / f'{view.name}.png', figure)
            # no slash: mmengine's local backend makes no folders, and says nothing
            runner.visualizer.add_image(f'queries_{view.name}', figure, runner.iter)
        print_log(f'Queries: {folder}', logger='current')
