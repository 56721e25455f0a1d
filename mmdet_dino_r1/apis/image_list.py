"""Long lists of images: folder trees, lists in files, COCO annotations, tar files, videos."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NoReturn

from ..structures.coco_file import image_file, parse_coco
from .image_input import IMAGE_SUFFIXES, list_images
from .tar_images import list_members
from .video_frames import VIDEO_SUFFIXES, list_frames


@dataclass
class ImageList:
    """Images in the order in which they are asked for.

    Attributes:
        paths: of each, what is read: a path, a URL, or the address of a member of a tar file.
        names: of each, what it is called in results.
        ids: of each, its ``id`` in results.
        roots: folders and tar files that were there; if one is gone, its images are not broken.
        category_ids: ids of classes by name, from a COCO file; {}: there was none.
        times: of frames of a video, by their place in the list, in seconds.
    """

    paths: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    roots: list[Path] = field(default_factory=list)
    category_ids: dict[str, int] = field(default_factory=dict)
    times: dict[int, float] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.paths)

    def fingerprint(self) -> str:
        """Equal for equal lists alone."""
        digest = hashlib.sha256()
        for row in zip(self.paths, self.names, self.ids, strict=True):
            digest.update(repr(row).encode())
        return digest.hexdigest()[:16]

    def vanished(self) -> Path | None:
        """A folder or tar file of the list that is no longer there, or empty: a lost mount."""
        return next((root for root in self.roots if not _holds_something(root)), None)


def read_image_list(
    inputs: Sequence[str], recursive: bool = False, img: str | None = None, stride: int = 1
) -> ImageList:
    """The images of inputs, each of which is one of these, in their order.

    ========== =====================================================================
    a folder   its images by name; of the folders in it as well, if ``recursive``
    ``*.txt``  a path or URL per line, as one would type it
    ``*.json`` COCO annotations, whose ``file_name`` are in the folder ``img``
    ``*.tar``  the images in it, in its order
    a video    every ``stride``-th of its frames
    else       the path or URL of an image
    ========== =====================================================================

    Names in results: of folders, images and tar files relative to the folder that they share; of
    lists and COCO files as they stand there. The ids of a COCO file are kept where it is the only
    input; else they count from 1.

    Args:
        inputs: paths and URLs.
        recursive: look into the folders in folders, also where links lead.
        img: image folder of COCO files; None: the folder that each lies in.
        stride: of videos (``VIDEO_SUFFIXES``).

    Raises:
        OSError: a file or folder is not there, or cannot be read.
        ValueError: a file has another content than its name says.
    """
    listed = ImageList()
    shared = common_folder(inputs)
    for item in inputs:
        path = Path(item)
        if '://' in item:
            _add(listed, [(item, item)])
        elif path.is_dir():
            found = map(str, _walk(path) if recursive else list_images(path))
            _add(listed, [(each, _relative(each, shared)) for each in found], path)
        elif path.suffix.lower() == '.txt':
            rows = [line.strip() for line in path.read_text(encoding='utf-8').splitlines()]
            _add(listed, [(row, row) for row in rows if row], _folder_of_all(path, rows))
        elif path.suffix.lower() == '.json':
            folder = path.parent if img is None else Path(img)
            images, category_ids = _read_coco(path)
            names = list(images.values())
            _add(listed, [(_place(folder, name), name) for name in names], folder)
            if len(inputs) == 1:
                listed.ids, listed.category_ids = list(images), category_ids
        elif path.suffix.lower() == '.tar':
            within = _relative(path, shared)
            members = list_members(path)
            chosen = {name: uri for name, uri in members.items() if _looks_like_image(name)}
            if not chosen:
                raise ValueError(f'{path}: none of its {len(members)} files is an image.')
            _add(listed, [(uri, f'{within}/{name}') for name, uri in chosen.items()], path)
        elif path.suffix.lower() in VIDEO_SUFFIXES:
            frames = list_frames(path, stride)
            listed.times |= dict(enumerate(frames.values(), len(listed)))
            name = _relative(path, shared)
            _add(listed, [(uri, f'{name}/{uri.rsplit("#")[-1]:0>6}.jpg') for uri in frames], path)
        else:
            _add(listed, [(item, _relative(path, shared))])
    listed.ids = listed.ids or list(range(1, len(listed) + 1))
    return listed


def common_folder(inputs: Sequence[str]) -> Path | None:
    """The folder that all inputs lie in; None where there are only URLs.

    File names of the JSON are relative to it: importers look for them in a folder of images, and
    some refuse absolute ones.
    """
    paths = [Path(item).absolute() for item in inputs if '://' not in item]
    folders = [path if path.is_dir() else path.parent for path in paths]
    return Path(os.path.commonpath(folders)) if folders else None


def _add(listed: ImageList, rows: list[tuple[str, str]], root: Path | None = None) -> None:
    """Add paths and names; FileNotFoundError: the ``root`` they lie in is not there, or empty."""
    if root is not None:
        if not _holds_something(root):
            raise FileNotFoundError(f'There is no {root}, or nothing in it; images lie there.')
        listed.roots.append(root)
    listed.paths += [path for path, _ in rows]
    listed.names += [name for _, name in rows]


def _holds_something(root: Path) -> bool:
    """Whether a file is there, or a folder that is not empty, as that of a lost mount is."""
    try:
        return root.is_file() or next(root.iterdir(), None) is not None
    except OSError:  # "no such file", "transport endpoint is not connected"
        return False


def _relative(path: Path | str, folder: Path | None) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()


def _place(folder: Path, name: str) -> str:
    return name if '://' in name else str(folder / name)


def _looks_like_image(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith('.')


def _walk(folder: Path) -> Iterator[Path]:
    """The images of a folder and all folders in it, by their paths; each folder once.

    Raises:
        FileNotFoundError: there is none.
    """
    visited: set[Path] = set()
    found = False
    for place, folders, files in os.walk(folder, onerror=_raise, followlinks=True):
        folders.sort()
        real = Path(place).resolve()
        if real in visited:  # a link that leads back
            folders.clear()
            continue
        visited.add(real)
        for name in sorted(files):
            if _looks_like_image(name):
                found = True
                yield Path(place) / name
    if not found:
        raise FileNotFoundError(f'The folder {folder} and those in it have no image.')


def _raise(error: OSError) -> NoReturn:
    raise error


def _folder_of_all(path: Path, rows: list[str]) -> Path | None:
    """The folder that a list's local images share; ValueError: the list is empty."""
    if not any(rows):
        raise ValueError(f'{path} is empty; it should have a path or URL of an image per line.')
    return common_folder([row for row in rows if row])


def _read_coco(path: Path) -> tuple[dict[int, str], dict[str, int]]:
    """File names of the images by id, and ids of the categories by name."""
    coco = parse_coco(path.read_bytes(), str(path))
    try:
        images = {image['id']: image_file(image) for image in coco['images']}
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from error
    if again := len(coco['images']) - len(images):
        raise ValueError(f'{path}: {again} of its images have the id of another.')
    return images, {each['name']: each['id'] for each in coco['categories']}
