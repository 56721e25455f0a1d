"""Containers of checkpoints, read without ``torch.load`` (ours), whatever PyTorch is installed.

Three are read: the zip file that ``torch.save`` writes since PyTorch 1.6; the older file of pickles
with the data behind them, which mmdet's ``publish_model.py`` writes; and
safetensors, by its own library. The objects are made by ``restricted_pickle``. Data goes from the
file right into the memory of its tensors.
"""

from __future__ import annotations

import pickle
import struct
import sys
from collections.abc import Callable
from io import BufferedReader, BytesIO
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile

import torch
from safetensors import safe_open

from .checkpoint_values import Refused, Storage, tensor_of
from .restricted_pickle import Unpickler

_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001  # of the older container
_SAVE_AGAIN = 'Where it was made, save its state_dict with torch.save.'


def read_checkpoint(path: Path, map_location=None) -> object:
    """What a file holds, with tensors where ``map_location`` (of ``torch.load``) puts them.

    A safetensors file gives ``dict(state_dict=...)``.

    Raises:
        Refused: the file is none of these containers, damaged, or asks for what is not made.
        Exception: of any other class where a damaged file makes no sense.
    """
    size = path.stat().st_size
    restore = _restorer(map_location)
    with path.open('rb') as file:
        head = file.read(512)
        file.seek(0)
        if head.startswith(b'PK\x03\x04'):
            return _read_zip(file, size, restore)
        if head.startswith(pickle.PROTO):
            return _read_pickles(file, size, restore)
    if head[8:9] == b'{' and int.from_bytes(head[:8], 'little') <= size - 8:
        return _read_safetensors(path, restore)
    if not head:
        raise Refused('it is empty.')
    if head[257:262] == b'ustar':
        raise Refused('it is a tar archive, as PyTorch wrote before 0.1.10.', _SAVE_AGAIN)
    page = head.lstrip()[:1] == b'<'
    raise Refused(f'it is {"a web page" if page else "no file of torch.save or safetensors"}.')


def _restorer(map_location) -> Callable[[torch.UntypedStorage, str], torch.UntypedStorage]:
    """Function of (storage, location in the file) that moves a storage, as in ``torch.load``."""

    def default(storage, location):
        try:
            return torch.serialization.default_restore_location(storage, location)
        except RuntimeError as error:
            where = f'its tensors cannot be put on {location!r}: {error}'
            raise Refused(where, "Load it with map_location='cpu'.") from error

    if map_location is None:
        return default
    if isinstance(map_location, dict):
        return lambda storage, location: default(storage, map_location.get(location, location))
    if isinstance(map_location, str | torch.device):
        return lambda storage, location: default(storage, str(map_location))

    def restore(storage, location):
        moved = map_location(storage, location)
        return default(storage, location) if moved is None else moved

    return restore


def _filled(file: BufferedReader, start: int, size: int) -> torch.UntypedStorage:
    """A storage with these bytes of the file."""
    storage = torch.UntypedStorage(size)
    if size:
        file.seek(start)
        memory = torch.empty(0, dtype=torch.uint8).set_(storage, 0, (size,), (1,)).numpy()
        if file.readinto(memory) != size:
            raise Refused('it is cut short.')
    return storage


def _read_zip(file: BufferedReader, size: int, restore: Callable) -> object:
    """``torch.save``'s zip: ``FOLDER/data.pkl`` and ``FOLDER/data/KEY`` for each storage."""
    entries = ZipFile(file)
    infos = sorted(entries.infolist(), key=lambda info: info.header_offset)
    folder = infos[0].filename.partition('/')[0] + '/' if infos else ''
    records = {info.filename.removeprefix(folder): info for info in infos}
    if len(records) < len(infos) or not all(i.filename.startswith(folder) for i in infos):
        raise Refused('it is a zip file with more than one folder.')
    if 'constants.pkl' in records or any(name.startswith('code/') for name in records):
        raise Refused('it is a TorchScript program.', _SAVE_AGAIN)
    if 'data.pkl' not in records:
        raise Refused('it is a zip file, but none of torch.save: no data.pkl in one folder.')
    ends = dict(zip(records, [info.header_offset for info in infos[1:]], strict=False))

    def place_of(name: str) -> tuple[int, int]:
        """Where the content of an entry starts, and how many bytes it has."""
        if name not in records:
            raise Refused('it lacks data that it refers to.')
        info = records[name]
        if info.compress_type != ZIP_STORED or info.flag_bits & 0x61:
            raise Refused('it is compressed or encrypted, which torch.save never does.')
        file.seek(info.header_offset)
        header = struct.unpack('<4s22x2H', file.read(30))
        start = info.header_offset + 30 + header[1] + header[2]
        end = ends.get(name, entries.start_dir)
        if header[0] != b'PK\x03\x04' or start + info.file_size > end:
            raise Refused('its entries overlap or reach beyond the file.')
        return start, info.file_size

    def content(name: str) -> bytes:
        start, count = place_of(name)
        file.seek(start)
        return file.read(count)

    def storage_of(dtype, key, location, numel):
        start, count = place_of(f'data/{key}')
        if numel != count // dtype.itemsize:
            raise Refused('the sizes of its data are not those that it declares.')
        return restore(_filled(file, start, count), location)

    if 'byteorder' in records and content('byteorder') != sys.byteorder.encode():
        raise Refused('its numbers have another byte order than this machine.', _SAVE_AGAIN)
    return Unpickler(BytesIO(content('data.pkl')), size, storage_of).load()


def _read_pickles(file: BufferedReader, size: int, restore: Callable) -> object:
    """The older container: three pickles about it, the object, the keys of storages, their data."""

    def load(storage_of=None):
        return Unpickler(file, size, storage_of).load()

    if load() != _MAGIC or load() != _VERSION:
        raise Refused('it is a pickle, but none of torch.save.')
    machine = load()
    if type(machine) is not dict or machine.get('little_endian') is not (sys.byteorder == 'little'):
        raise Refused('its numbers have another byte order than this machine.', _SAVE_AGAIN)
    # The data follows the pickle that refers to it. So that is read twice: first for the sizes.
    start_of_object, counts, places = file.tell(), {}, {}

    def measured(dtype, key, location, numel):
        counts[key] = numel, numel * dtype.itemsize

    load(measured)
    for key in load():
        numel, count = counts.pop(key)
        if int.from_bytes(file.read(8), 'little') != numel:
            raise Refused('the sizes of its data are not those that it declares.')
        places[key] = file.tell(), count
        if file.seek(count, 1) > size:
            raise Refused('it is cut short.')
    file.seek(start_of_object)

    def storage_of(dtype, key, location, numel):
        at = file.tell()
        storage = restore(_filled(file, *places[key]), location)
        file.seek(at)
        return storage

    return load(storage_of)


def _read_safetensors(path: Path, restore: Callable) -> dict:
    """Tensors by name, and nothing else; damaged files are found out by the library."""
    with safe_open(path, framework='pt') as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for name, tensor in tensors.items():
        data = restore(tensor.untyped_storage(), 'cpu')
        storage = Storage(data, tensor.dtype, data.nbytes())
        place = tensor.storage_offset(), tuple(tensor.shape), tensor.stride()
        tensors[name] = tensor_of(storage, *place)
    return dict(state_dict=tensors)
