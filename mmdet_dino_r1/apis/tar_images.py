"""Images inside of tar files (webdataset's shards), read where they lie."""

from __future__ import annotations

import tarfile
from pathlib import Path

from mmengine.fileio import BaseStorageBackend, register_backend


class TarBackend(BaseStorageBackend):
    """What mmengine's ``fileio`` reads ``tar://FILE#START+SIZE#MEMBER`` with.

    The place of the bytes is part of the address, so that processes which read need no index.
    """

    def get(self, filepath: str) -> bytes:
        """The bytes of a member; OSError: the file is not there, or ends before them."""
        file, place, _ = filepath.removeprefix('tar://').rsplit('#', 2)
        start, size = map(int, place.split('+'))
        with open(file, 'rb') as tar:
            tar.seek(start)
            content = tar.read(size)
        if len(content) < size:
            raise OSError(f'{file} ends within this member')
        return content

    def get_text(self, filepath: str, encoding: str = 'utf-8') -> str:
        """The same as text."""
        return self.get(filepath).decode(encoding)


register_backend('tar', TarBackend, prefixes='tar')


def list_members(path: Path) -> dict[str, str]:
    """Addresses of all files in a tar file, by their names in it, in its order.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is compressed, or no tar file, or ends too early.
    """
    try:
        with tarfile.open(path, 'r:') as tar:
            files = [member for member in tar if member.isreg()]
    except tarfile.TarError as error:
        raise ValueError(
            f'{path} cannot be read as a tar file: {error}. One that is compressed has to be '
            'unpacked by gunzip first, since images are read from the middle of it.'
        ) from error
    return {
        member.name: f'tar://{path}#{member.offset_data}+{member.size}#{_plain(member.name)}'
        for member in files
    }


def _plain(name: str) -> str:
    """A member's name without what has a meaning in an address."""
    return name.replace('#', '_').replace('://', '_')
