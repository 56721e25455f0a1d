"""The reader of checkpoints gives what ``torch.load`` gives, or says why it does not."""

import io
import json
import pickle
import pickletools
import tarfile
import zipfile
from collections import Counter, OrderedDict

import numpy as np
import pytest
import torch
from crafted_checkpoints import Call, Data, tensor, write
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from mmengine.model import ExponentialMovingAverage
from mmengine.optim import MultiStepLR
from safetensors.torch import save_file
from torch import nn

from mmdet_dino_r1.utils.compat import torch_version
from mmdet_dino_r1.utils.safe_files import WeightsNotLoaded, load_torch_file

DTYPES = 'bool uint8 int8 int16 int32 int64 float16 bfloat16 float32 float64 complex64 complex128'
NEW_DTYPES = 'uint16 uint32 uint64 float8_e4m3fn float8_e5m2'


def dtypes():
    names = DTYPES.split() + (NEW_DTYPES.split() if torch_version() >= (2, 6) else [])
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
    ids=lambda where: getattr(where, '__name__', str(where)),
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
    torch.load(path, weights_only=torch_version() < (2, 6))
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


def test_names_in_the_oldest_weights(tmp_path):
    """As PyTorch wrote them before 0.4."""
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


def test_safetensors_of_shapes_that_no_tensor_has_are_refused(tmp_path):
    for shape, count in (([1] * 65, 4), ([0, 1 << 62, 1 << 62], 0)):
        header = json.dumps(dict(a=dict(dtype='F32', shape=shape, data_offsets=[0, count])))
        size = len(header).to_bytes(8, 'little')
        (tmp_path / 'x').write_bytes(size + header.encode() + bytes(count))
        with pytest.raises(WeightsNotLoaded, match='x is not a checkpoint'):
            load_torch_file(tmp_path / 'x')


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
            data[at : at + value] = data[other : other + value]
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
