"""Pickles written by hand to break the reader of checkpoints are refused."""

import io
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from crafted_checkpoints import Call, Data, tensor, write
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer

from mmdet_dino_r1.utils import checkpoint_values, restricted_pickle
from mmdet_dino_r1.utils.compat import torch_version
from mmdet_dino_r1.utils.safe_files import WeightsNotLoaded, load_torch_file


def test_the_tests_own_writer_writes_what_is_read(tmp_path):
    path = write(tmp_path / 'x.pth', dict(a=tensor(), b=tensor(size=(2, 2), stride=(2, 1))))
    one, other = load_torch_file(path), torch.load(path, weights_only=False)
    assert one['a'].equal(other['a'])
    for content in (one, other):
        assert content['b'].tolist() == [[0, 1], [2, 3]]


COMPLEX = Data(2, torch.ComplexFloatStorage)
NOT_MADE = {
    # CVE-2026-24747: what is no dict was given items and attributes, without a look at sizes
    'an item is set in a tensor': tensor(items=[(10**6, 1)]),
    'an attribute of a tensor is set': tensor(state=dict(data=1)),
    'a tensor is led to other data': tensor(state=(Data(), 100, (4,), (1,))),
    'a Size gets an item': Call(torch.Size, (1,), items=[(0, 1)]),
    'a list gets a key': Call(list, items=[(0, 1)]),
    'more data declared than there is': tensor(Data(400), size=(400,)),
    'less data declared than there is': tensor(Data(2), size=(2,)),
    'a negative amount of data': tensor(Data(-4)),
    'an amount of data of many digits': tensor(Data(1 << 70)),
    'data of two types': [tensor(), tensor(Data(kind=torch.IntStorage))],
    'data with two locations': [tensor(), tensor(Data(location='cuda'))],
    'data that is not in the file': tensor(Data(key='1')),
    'data outside of its folder': tensor(Data(key='../data.pkl')),
    # bounds of a tensor in its data
    'a size beyond the data': tensor(size=(5,)),
    'an offset beyond the data': tensor(offset=1),
    'an offset far beyond the data': tensor(offset=(1 << 63) - 1, size=(1,)),
    'an empty tensor beyond the data': tensor(offset=5, size=(0,)),
    'a stride beyond the data': tensor(size=(2,), stride=(4,)),
    'strides that overflow': tensor(size=(1 << 32, 1 << 32), stride=(1 << 32, 1 << 32)),
    'a negative offset': tensor(offset=-1),
    'a negative size': tensor(size=(-1,)),
    'a negative stride': tensor(offset=3, stride=(-1,)),
    'sizes and strides that do not match': tensor(size=(2, 2), stride=(1,)),
    'a size that is a number': tensor(size=4),
    'a size of halves': tensor(size=(0.5,)),
    'more dimensions than there are': tensor(size=(1,) * 65, stride=(1,) * 65),
    'a tensor much larger than its data': tensor(size=(1 << 30,), stride=(0,)),
    'an empty tensor of huge sides': tensor(size=(0, 1 << 62, 1 << 62), stride=(0, 0, 0)),
    'backward hooks': tensor(hooks=OrderedDict(a=1)),
    'a conjugate tensor': tensor(COMPLEX, 0, (2,), (1,), False, None, dict(conj=True)),
    'gradients of ints': tensor(Data(kind=torch.IntStorage), grad=True),
    'a flag that is a number': tensor(grad=1),
    'a tensor of a tensor': tensor(tensor()),
    'a tensor of a type': tensor(torch.float32),
    'a storage alone': [Data()],
    'a class alone': [OrderedDict],
    'a parameter of a list': Call(torch._utils._rebuild_parameter, [1], True, OrderedDict()),
    # plain objects
    'an attribute of a dict': Call(OrderedDict, state=dict(update=1)),
    'an attribute beside the metadata': Call(OrderedDict, state=dict(_metadata=OrderedDict(), a=1)),
    'metadata of another kind': Call(OrderedDict, state=dict(_metadata=1)),
    'a dict of a list': Call(OrderedDict, [('a', 1)]),
    'a million bytes out of a number': Call(bytearray, 10**6),
    'bytes in an unknown code': Call(__import__('_codecs').encode, 'a', 'punycode'),
    'a device that is none': Call(torch.device, 'nowhere'),
    'an int of a thousand digits': 10**1000,
    'a key that is a number of a thousand bits': {1 << 1000: 1},
    'a log of code': Call(HistoryBuffer, 'x', 'x'),
    'a log of other things': Call(
        HistoryBuffer, state=dict(_log_history=[1], _count_history=[1], max_length=1)
    ),
    'a log with another attribute': Call(
        HistoryBuffer,
        state=dict(_log_history=np.ones(1), _count_history=np.ones(1), max_length=1, mean=1),
    ),
    'an array shorter than its shape': Call(
        np.zeros(1).__reduce__()[0], np.ndarray, (0,), b'b',
        state=(1, (2,), np.dtype('f8'), False, bytes(8)),
    ),
    'an array of objects': np.array([None]),
    'an array of text': np.array(['a']),
    'an array of big-endian numbers': np.ones(2, '>f4'),
    'an array that never comes': Call(np.zeros(1).__reduce__()[0], np.ndarray, (0,), b'b'),
    'a number of no bytes': Call(np.float32(1).__reduce__()[0], np.dtype('f4'), b''),
}  # fmt: skip


@pytest.mark.parametrize('what', NOT_MADE)
def test_what_torch_save_would_not_write_is_refused(tmp_path, what):
    path = write(tmp_path / 'x.pth', NOT_MADE[what])
    with pytest.raises(WeightsNotLoaded, match=r'x\.pth is not a checkpoint') as error:
        load_torch_file(path)
    assert '\n' not in str(error.value) or 'If you trust' in str(error.value)


@pytest.mark.skipif(torch_version() >= (2, 10), reason='mended in PyTorch 2.10')
def test_the_safe_loader_of_this_pytorch_falls_for_it(tmp_path):
    """CVE-2026-24747, up to where memory would be written that is not the tensor's."""
    path = write(tmp_path / 'x.pth', tensor(items=[(0, 99.0)]))
    assert torch.load(path, weights_only=True).tolist() == [99, 1, 2, 3]
    path = write(tmp_path / 'x.pth', tensor(Data(6), size=(6,)))  # of four numbers
    assert torch.load(path, weights_only=True).untyped_storage().nbytes() == 24


def nested(count, wrap=b'\x85', start=b'N'):
    return b'\x80\x02' + start + wrap * count + b'.'


INSTRUCTIONS = {
    'a deep tuple': nested(2 * 10**5),
    'a deep list': b'\x80\x02' + b']' * 10**5 + b'a' * (10**5 - 1) + b'.',
    'a deep dict': b'\x80\x02' + b'}N' * 10**5 + b'N' + b's' * 10**5 + b'.',
    'a deep key': b'\x80\x02}' + b'N' + b'\x85' * 2 * 10**5 + b'Ns.',
    'many marks': b'\x80\x02' + b'(' * 10**6 + b'.',
    'a list in itself': b'\x80\x02]q\x00h\x00a.',
    'a dict in itself': b'\x80\x02}q\x00Nh\x00s.',
    'a billion laughs': b'\x80\x02(Nq\x00' + b'h\x00h\x00\x86q\x00' * 64 + b't.',
    'laughs that are lists': b'\x80\x02(]q\x00' + b'](h\x00h\x00eq\x00' * 64 + b't.',
    'a string longer than the file': b'\x80\x02X\xff\xff\xff\x7fa.',
    'a string of 2**63 bytes': b'\x80\x04\x8d' + b'\xff' * 7 + b'\x7fa.',
    'an int of 2 GiB': b'\x80\x02\x8b\xff\xff\xff\x7fa.',
    'an int in digits': b'\x80\x02I1\n.',
    'a class by INST': b'\x80\x02(ios\nsystem\n.',
    'an extension': b'\x80\x02\x82\x01.',
    'a buffer from outside': b'\x80\x05\x97.',
    'a duplicate': b'\x80\x02]2a.',
    'a list as key': b'\x80\x02}]Ns.',
    'a set with a list': b'\x80\x04\x8f(]\x90.',
    'half a pair': b'\x80\x02}(Nu.',
    'nothing': b'\x80\x02.',
    'two values': b'\x80\x02NN.',
    'an end before the end': b'\x80\x02(N.',
    'no end': b'\x80\x02N',
    'no bytes': b'',
    'a number that was not noted': b'\x80\x02h\x07.',
    'a mark that is not there': b'\x80\x02e.',
    'a call of what is no class': b'\x80\x02N)R.',
    'a protocol to come': b'\x80\x09N.',
    'a name without an end': b'\x80\x02cos',
    'a name of control characters': b'\x80\x02cos\n\x1b[2J\n.',
    'a reference that is no tuple': b'\x80\x02NQ.',
    'text that is no text': b'\x80\x02X\x01\x00\x00\x00\xff.',
}


@pytest.mark.parametrize('what', INSTRUCTIONS)
def test_instructions_that_make_no_sense_are_refused(tmp_path, what):
    path = write(tmp_path / 'x.pth', INSTRUCTIONS[what])
    with pytest.raises(WeightsNotLoaded, match=r'x\.pth is not a checkpoint') as error:
        load_torch_file(path)
    assert str(error.value).isprintable()


def test_counts_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(restricted_pickle, 'MADE', 10)
    write(tmp_path / 'x.pth', [Call(OrderedDict) for _ in range(11)])
    with pytest.raises(WeightsNotLoaded, match='more than 10 objects'):
        load_torch_file(tmp_path / 'x.pth')
    monkeypatch.setattr(restricted_pickle, 'VALUES', 10)
    write(tmp_path / 'x.pth', list(range(11)))
    with pytest.raises(WeightsNotLoaded, match='more than 10 values'):
        load_torch_file(tmp_path / 'x.pth')


def test_a_shared_dict_is_not_copied_each_time_it_is_named(tmp_path):
    """ConfigDict's own constructor would make 2 ** 17 of these."""
    content = ConfigDict(a=1)
    for _ in range(16):
        content = Call(ConfigDict, dict(a=content, b=content))
    loaded = load_torch_file(write(tmp_path / 'x.pth', content))
    assert loaded.a is loaded.b and type(loaded.a.b) is ConfigDict


def test_all_that_a_file_asks_for_is_named(tmp_path):
    part = Call(checkpoint_values.Array, 1, state=dict(a=1), listed=[1], items=[(1, 2)])
    write(tmp_path / 'x.pth', [part, dict(a=Call(io.BytesIO)), Path('a'), tensor()])
    named = (
        r'`_io\.BytesIO`, `mmdet_dino_r1\.utils\.checkpoint_values\.Array`, `pathlib\.PosixPath`'
    )
    with pytest.raises(WeightsNotLoaded, match=named):
        load_torch_file(tmp_path / 'x.pth')
