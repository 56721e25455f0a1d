"""Checkpoints that no ``torch.save`` writes, for the tests of what reads them."""

import io
import pickle
import zipfile
from collections import OrderedDict

import numpy as np
import torch


class Call:
    """Pickles to a call of any function."""

    def __init__(self, function, *args, state=None, listed=None, items=None):
        self.parts = function, args, state, listed, items

    def __reduce__(self):
        *parts, listed, items = self.parts
        return *parts, listed and iter(listed), items and iter(items)


class Data:
    """Pickles to a reference to the data that lies elsewhere in the file."""

    def __init__(self, numel=4, kind=torch.FloatStorage, key='0', location='cpu'):
        self.saved = 'storage', kind, key, location, numel


def pickled(content, protocol=2):
    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return value.saved if isinstance(value, Data) else None

    buffer = io.BytesIO()
    Pickler(buffer, protocol).dump(content)
    return buffer.getvalue()


def write(path, content, records=None, compression=zipfile.ZIP_STORED, folder='x/'):
    """A zip file as ``torch.save``'s, of an object or of the bytes of a pickle."""
    code = content if isinstance(content, bytes) else pickled(content)
    records = {'data/0': np.arange(4, dtype=np.float32).tobytes()} if records is None else records
    with zipfile.ZipFile(path, 'w', compression) as file:
        for name, data in {'data.pkl': code, 'version': b'3', **records}.items():
            file.writestr(folder + name, data)
    return path


def tensor(storage=None, offset=0, size=(4,), stride=(1,), grad=False, hooks=None, *more, **parts):
    hooks = OrderedDict() if hooks is None else hooks
    args = storage or Data(), offset, size, stride, grad, hooks, *more
    return Call(torch._utils._rebuild_tensor_v2, *args, **parts)
