"""A config by path or by the name of a shipped one, and the pipeline of its test images."""

from __future__ import annotations

from pathlib import Path

from mmengine.config import Config

from .options import merge_options
from .shipped import config_path
from .tested_sets import innermost_dataset


def load_config(config: str | Path | Config, cfg_options: dict | None = None) -> Config:
    """A config by path, by the name of a shipped one, or as it is, with changes merged in place.

    FileNotFoundError where there is no such file, and none of that name is shipped; WrongOption
    where nothing would read a change, or it cannot be made.
    """
    if not isinstance(config, Config):
        path = str(config) if Path(config).is_file() else config_path(str(config))
        config = Config.fromfile(path)
    if cfg_options:
        merge_options(config, cfg_options)
    return config


def image_pipeline(cfg: Config) -> list[dict]:
    """How the config prepares test images; in a group, those of its members in common."""
    dataset = innermost_dataset(cfg.test_dataloader.dataset)
    return (dataset.get('common') or dataset).pipeline
