"""The reader of checkpoints gives what ``torch.load`` gives, or says why it does not."""

import io
import pickle
import pickletools
import tarfile
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from mmengine.model import ExponentialMovingAverage
from mmengine.optim import MultiStepLR
from safetensors.torch import save_file
from torch import nn

from mmdet_dino_r1.utils import checkpoint_values, restricted_pickle
from mmdet_dino_r1.utils.safe_files import WeightsNotLoaded, load_torch_file

VERSION = tuple(int(part) for part in torch.__version__.split('.')[:2])
DTYPES = 'bool uint8 int8 int16 int32 int64 float16 bfloat16 float32 float64 complex64 complex128'
NEW_DTYPES = 'uint16 uint32 uint64 complex32 float8_e4m3fn float8_e5m2'


def dtypes():
    names = DTYPES.split() + (NEW_DTYPES.split() if VERSION >= (2, 4) else [])
    return {name: torch.arange(2).to(getattr(torch, name)) for name in names}


def views():
    base = torch.arange(24.0).view(4, 6)
    return dict(
        base=base,
        row=base[1],
        transposed=base.t(),
        strided=base[::2, 1::3],
        expanded=torch.ones(3, 1).expand(3, 1000),
        empty=torch.zeros(0, 3),
        empty_part=base[4:],
        scalar=torch.tensor(2.0),
        grad=torch.ones(2, requires_grad=True),
        again=base,
    )


def trained():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = ExponentialMovingAverage(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    schedule = MultiStepLR(optimizer, milestones=[2, 2, 3])
    model(torch.ones(3, 2)).sum().backward()
    optimizer.step()
    schedule.step()
    average.update_parameters(model)
    parts = model, average, optimizer, schedule
    return {type(part).__name__: part.state_dict() for part in parts}


def history():
    log = HistoryBuffer()
    for value in (3.0, 1.0, 2.0):
        log.update(value)
    return dict(full=log, new=HistoryBuffer(), again=log)


def numbers():
    names = 'bool int8 uint16 int64 float16 float32 float64 complex64'.split()
    arrays = {name: np.arange(6).reshape(2, 3).astype(name) for name in names}
    return dict(
        **arrays,
        scalars=[array[0, 1] for array in arrays.values()],
        turned=arrays['int8'].T,
        empty=np.zeros((0, 2)),
        flat=np.array(1.5),
        dtype=np.dtype('float32'),
    )


def plain():
    return dict(
        scalars=[None, True, False, 0, 255, 65535, -1, 2**31, -(2**40), 10**30, 1.5, float('inf')],
        text=['', 'é', 'x' * 300, b'', b'\xff\x00', b'y' * 300, bytearray(b'z'), bytearray()],
        containers=[(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [], [[]], {}, {1, 'a'}, set()],
        more=[
            frozenset([1]),
            1j,
            Counter('aab'),
            ConfigDict(a=ConfigDict(b=[1])),
            OrderedDict(a=1),
        ],
        torch=[torch.Size([1, 2]), torch.device('cpu'), torch.device('cuda', 1), torch.float16],
        keys={1: 1, 'a': 2, None: 3, (1, 'b'): 4, 1.5: 5, False: 6, b'c': 7},
    )


def parameters():
    weight = nn.Parameter(torch.ones(2))
    return [weight, nn.Parameter(torch.ones(2), requires_grad=False), weight]


KINDS = [dtypes, views, trained, history, numbers, plain, parameters]


def same(one, other):
    """Fail where two objects differ in type, layout or value."""
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        for fact in ('dtype', 'device', 'shape', 'requires_grad', 'is_leaf'):
            assert getattr(one, fact) == getattr(other, fact)
        assert one.stride() == other.stride() and one.storage_offset() == other.storage_offset()
        raw = [tensor.untyped_storage().tolist() for tensor in (one, other)]
        assert raw[0] == raw[1]
    elif isinstance(one, np.ndarray):
        assert one.dtype == other.dtype and one.flags.f_contiguous == other.flags.f_contiguous
        assert one.flags.writeable and one.shape == other.shape and (one == other).all()
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            same(one[key], other[key])
        if type(one) is OrderedDict:
            same(vars(one), vars(other))
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            same(*pair)
    elif isinstance(one, HistoryBuffer):
        same(one.data, other.data)
        assert one.max_length == other.max_length
    else:
        assert one == other


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('container', ['zip', 'pickles'])
def test_it_gives_what_torch_load_gives(tmp_path, kind, container):
    path, content = tmp_path / 'x.pth', kind()
    if container == 'pickles' and kind is dtypes:
        content = {name: content[name] for name in DTYPES.split()}
    for protocol in (2, 3, 4, 5):
        is_zip = container == 'zip'
        torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=is_zip)
        same(load_torch_file(path), torch.load(path, map_location='cpu', weights_only=False))


@pytest.mark.parametrize('is_zip', [True, False])
def test_what_shares_memory_still_does(tmp_path, is_zip):
    torch.save(views(), tmp_path / 'x.pth', _use_new_zipfile_serialization=is_zip)
    content = load_torch_file(tmp_path / 'x.pth')
    content['base'].fill_(7)
    assert content['again'] is content['base'] and content['transposed'].eq(7).all()
    assert content['scalar'] == 2


@pytest.mark.parametrize(
    'where',
    [None, 'cpu', torch.device('cpu'), {'cpu': 'cpu'}, 'meta', {'cpu': 'meta'}, lambda s, _: s]
    + [lambda s, location: None],
    ids=str,
)
@pytest.mark.parametrize('kind', ['zip', 'pickles', 'safetensors'])
def test_map_location(tmp_path, where, kind):
    path, content = tmp_path / 'x', dict(state_dict=dict(w=torch.arange(6.0).view(2, 3)))
    if kind == 'safetensors':
        save_file(content['state_dict'], path)
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == 'zip')
    weight = load_torch_file(path, where)['state_dict']['w']
    assert weight.shape == (2, 3)
    assert weight.device.type == ('meta' if 'meta' in str(where) else 'cpu')
    assert weight.is_meta or weight[1].tolist() == [3, 4, 5]


# What no torch.save writes


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


def test_the_tests_own_writer_writes_what_is_read(tmp_path):
    path = write(tmp_path / 'x.pth', dict(a=tensor(), b=tensor(size=(2, 2), stride=(2, 1))))
    content = load_torch_file(path)
    same(content, torch.load(path, weights_only=False))
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


def nested(count, wrap=b'\x85', start=b'N'):
    return b'\x80\x02' + start + wrap * count + b'.'


INSTRUCTIONS = {
    'a deep tuple': nested(10**6),
    'a deep list': b'\x80\x02' + b']' * 10**5 + b'a' * (10**5 - 1) + b'.',
    'a deep dict': b'\x80\x02' + b'}N' * 10**5 + b'N' + b's' * 10**5 + b'.',
    'a deep key': b'\x80\x02}' + b'N' + b'\x85' * 10**6 + b'Ns.',
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


# Containers


class Script(nn.Module):
    """Writes a file as TorchScript loads it."""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def forward(self, x: torch.Tensor):
        return x

    @torch.jit.export
    def __getstate__(self):
        return self.path, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]):
        self.path, self.training = state[0], state[1]
        torch.save(torch.ones(1), state[0])


@pytest.mark.filterwarnings('ignore:.*torch.jit', 'ignore:.*TorchScript')
def test_a_program_is_not_run(tmp_path):
    """CVE-2025-32434: before 2.6, torch.load(weights_only=True) handed the file to TorchScript."""
    path, marker = tmp_path / 'x.pth', tmp_path / 'marker'
    torch.jit.save(torch.jit.script(Script(str(marker))), str(path))
    with pytest.raises(WeightsNotLoaded, match='it is a TorchScript program. Where it was made'):
        load_torch_file(path)
    assert not marker.exists()
    # The trap is a trap, which caught PyTorch's own safe loader.
    torch.load(path, weights_only=VERSION < (2, 6))
    assert marker.exists()


def test_the_oldest_container_is_refused(tmp_path):
    """CVE-2025-32434's other container, whose sizes no version of PyTorch has looked at."""
    data = pickle.dumps(1, 2) + pickle.dumps(('0', 'cpu', torch.FloatStorage), 2)
    with tarfile.open(tmp_path / 'x.pth', 'w') as file:
        for name in ('storages', 'tensors', 'pickle'):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    with pytest.raises(WeightsNotLoaded, match='it is a tar archive, as PyTorch wrote before 0.1'):
        load_torch_file(tmp_path / 'x.pth')


def test_zip_files_of_others_are_refused(tmp_path):
    def refused(why, content=None, **how):
        path = write(tmp_path / 'x.pth', [tensor()] if content is None else content, **how)
        with pytest.raises(WeightsNotLoaded, match=why):
            load_torch_file(path)
        return path

    refused('it is compressed or encrypted', compression=zipfile.ZIP_DEFLATED)
    refused('none of torch.save: no data.pkl', folder='x/y/')
    refused('more than one folder', folder='')
    refused('another byte order', records=dict(byteorder=b'big'))
    refused('it is a TorchScript program', records={'code/a.py': b''})
    path = write(tmp_path / 'x.pth', [tensor()])
    with zipfile.ZipFile(path, 'a') as file:
        file.writestr('y/data/0', b'')
    with pytest.raises(WeightsNotLoaded, match='more than one folder'):
        load_torch_file(path)


def test_entries_that_overlap_are_refused(tmp_path):
    """As in a zip bomb: the directory says of both that they lie in the same bytes."""
    two = [tensor(Data(4)), tensor(Data(4, key='1'))]
    path = write(tmp_path / 'x.pth', two, {'data/0': bytes(16), 'data/1': bytes(16)})
    with zipfile.ZipFile(path) as file:
        first, second = (file.getinfo(f'x/data/{key}').header_offset for key in '01')
    whole = path.read_bytes()
    assert len(load_torch_file(path)) == 2
    at = whole.rindex(second.to_bytes(4, 'little'))
    path.write_bytes(whole[:at] + first.to_bytes(4, 'little') + whole[at + 4 :])
    with pytest.raises(WeightsNotLoaded, match='entries overlap'):
        load_torch_file(path)


def test_the_older_container_declares_what_it_has(tmp_path):
    path = tmp_path / 'x.pth'
    torch.save([torch.ones(4)], path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    count = len(whole) - 16 - 8
    assert int.from_bytes(whole[count : count + 8], 'little') == 4
    for content, why in (
        (whole[:count] + b'\x05' + whole[count + 1 :], 'not those that it declares'),
        (whole[:-1], 'cut short'),
        (whole.replace(b'\x88', b'\x89', 1), 'byte order'),
        (pickle.dumps(dict(w=1), 2), 'it is a pickle, but none of torch.save'),
    ):
        assert content != whole
        path.write_bytes(content)
        with pytest.raises(WeightsNotLoaded, match=why):
            load_torch_file(path)


def test_weights_that_publish_model_wrote(tmp_path):
    """OpenMMLab's own are such files, and PyTorch's oldest have other names in them."""
    old = [
        Call(nn.parameter.Parameter, tensor(), state=(True, False, OrderedDict())),
        Call(torch._utils._rebuild_tensor, Data(), 0, (4,), (1,)),
    ]
    content = load_torch_file(write(tmp_path / 'x.pth', old))
    assert [one.requires_grad for one in content] == [True, False]
    assert [one.tolist() for one in content] == [[0, 1, 2, 3]] * 2


def test_safetensors(tmp_path):
    weights = dict(a=torch.ones(2, 3), b=torch.arange(3), c=torch.zeros(0, dtype=torch.bfloat16))
    save_file(weights, tmp_path / 'any.name', metadata=dict(a='b'))
    content = load_torch_file(tmp_path / 'any.name')
    assert content.keys() == {'state_dict'}
    same(dict(sorted(content['state_dict'].items())), weights)


# Damaged files


def bases():
    """A file of each container, and where each of its instructions lies."""
    content = dict(
        state_dict=trained()['Sequential'], log=history(), meta=numbers(), shared=views()
    )
    content['meta'].pop('float16')
    found = []
    for is_zip, protocol in ((True, 2), (False, 2), (True, 5)):
        buffer = io.BytesIO()
        torch.save(content, buffer, pickle_protocol=protocol, _use_new_zipfile_serialization=is_zip)
        whole = buffer.getvalue()
        found.append((whole, opcodes(whole)))
    return found


def opcodes(whole):
    start = whole.index(b'\x80') if whole[:2] == b'PK' else 0
    file, places = io.BytesIO(whole), []
    file.seek(start)
    for _ in range(1 if start else 4):
        places += [place for _, _, place in pickletools.genops(file)]
    return places


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    path = tmp_path_factory.mktemp('damaged') / 'x.pth'
    save_file(dict(a=torch.ones(2, 3), b=torch.arange(3)), path)
    whole = path.read_bytes()
    return path, [*bases(), (whole, range(8))]


CODES = [ord(code.code) for code in pickletools.opcodes]
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(['opcode', 'opcode', 'byte', 'byte', 'byte near', 'cut', 'copy', 'swap']),
        st.floats(0, 1, exclude_max=True),
        st.floats(0, 1, exclude_max=True),
        st.integers(0, 255),
    ),
    min_size=1,
    max_size=3,
)


def changed(whole, places, changes):
    for how, first, second, value in changes:
        at, other = int(first * len(whole)), int(second * len(whole))
        data = bytearray(whole)
        if how.startswith(('opcode', 'byte near')):
            at = places[int(first * len(places))] + (how == 'byte near')
            value = CODES[value % len(CODES)] if how == 'opcode' else value
        if how == 'cut':
            del data[at : at + value * value]
        elif how == 'copy':
            data[at:at] = data[other : other + value]
        elif how == 'swap':
            data[at : at + 8], data[other : other + 8] = data[other : other + 8], data[at : at + 8]
        elif at < len(data):
            data[at] = value
        whole = bytes(data)
    return whole


@pytest.mark.slow
@settings(max_examples=2000, derandomize=True, database=None, deadline=None)
@given(st.integers(0, 3), CHANGES)
@example(0, [('cut', 0.0, 0.0, 1)])
def test_damaged_files_are_read_or_refused(files, base, changes):
    """Bytes and instructions changed, pieces cut out, copied and swapped."""
    path, whole = files
    path.write_bytes(changed(*whole[base], changes))
    try:
        content = load_torch_file(path)
    except WeightsNotLoaded as error:
        assert str(path) in str(error)
        return
    repr(content)  # nothing in it is out of bounds
