"""Tensors with a description, in safetensors files: numbers and text, and no code to run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .atomic_write import atomic_write

Content = TypeVar('Content')


@dataclass(frozen=True)
class TensorFile:
    """A kind of file: tensors by name, and in the metadata a JSON object that describes them."""

    key: str  # of the JSON object in the metadata
    name: str  # what a user calls the content: 'prompt bank'
    how_to_make: str  # the command that makes such a file
    version: int = 1  # of the layout; files of later versions are refused

    def write(
        self,
        path: str | Path,
        tensors: Mapping[str, Tensor],
        described: dict,
        version: int | None = None,
    ) -> Path:
        """Write tensors of any shapes and a description in JSON values; whole or not at all.

        ``version`` is that of the layout, where an earlier one serves; None: the latest.

        Returns:
            The path, whose folder is made.

        Raises:
            OSError: the file cannot be written.
        """
        path = Path(path)
        on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        text = json.dumps(dict(described, version=version or self.version))
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, save(on_cpu, metadata={self.key: text}))
        return path

    def read(
        self, path: str | Path, build: Callable[[dict[str, Tensor], dict], Content]
    ) -> Content:
        """Read a file, onto the CPU.

        ``build`` makes the content from tensors, of any shapes, and description; what it raises
        over broken values is put into words that name the file.

        Raises:
            FileNotFoundError: no such file.
            ValueError: the file is of another kind, truncated, broken or of a later version.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f'There is no {self.name} {path}; make it: {self.how_to_make}')
        try:
            with safe_open(path, framework='pt') as file:
                text = (file.metadata() or {}).get(self.key)
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(
                f'{path} is not a {self.name}, or only part of one ({error}). It should be a '
                f'safetensors file; make it again: {self.how_to_make}'
            ) from error
        if text is None:
            raise ValueError(
                f'{path} is a safetensors file but not a {self.name}; make one: {self.how_to_make}'
            )
        try:
            described = json.loads(text)
            if described['version'] > self.version:
                raise ValueError(
                    f'format version {described["version"]}, this package reads up to '
                    f'{self.version}; upgrade mmdet_dino_r1.'
                )
            return build(tensors, described)
        except KeyError as error:
            raise ValueError(f'{path} is a broken {self.name}: it lacks {error}.') from error
        except (ValueError, TypeError, IndexError, AttributeError) as error:
            raise ValueError(f'{path} is a broken {self.name}: {error}') from error
