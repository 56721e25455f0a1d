"""Checkpoints never run code, whichever way they come in; what both stacks save loads."""

import importlib
import os
import pickle
import threading
import zipfile
from argparse import Namespace
from collections import OrderedDict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from crafted_checkpoints import Call
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.runner import CheckpointLoader, Runner, load_checkpoint
from safetensors.torch import save_file
from torch import nn

from mmdet_dino_r1.utils import safe_files
from mmdet_dino_r1.utils.safe_files import WeightsNotLoaded, load_torch_file


class Model(BaseModel):
    """One weight."""

    def __init__(self, init_cfg=None):
        super().__init__(init_cfg=init_cfg)
        self.layer = nn.Linear(1, 1)

    def forward(self, inputs):
        return inputs

    def initialised(self):
        self.init_weights()
        return self


@pytest.fixture
def marker(tmp_path):
    return tmp_path / 'marker'


@pytest.fixture
def hostile(tmp_path, marker):
    """A checkpoint that makes the marker when it is unpickled."""
    path = tmp_path / 'hostile.pth'
    meta = Call(os.system, f'touch {marker}')
    torch.save(dict(meta=meta, state_dict=Model().state_dict()), path)
    return path


def runner_of(folder):
    return Runner(Model(), work_dir=str(folder), experiment_name=f'safe_{folder.name}')


DOORS = {
    'by mmengine': lambda path, tmp: load_checkpoint(Model(), str(path)),
    'to warm-start': lambda path, tmp: runner_of(tmp).load_checkpoint(str(path)),
    'to resume': lambda path, tmp: runner_of(tmp).resume(str(path)),
    'to initialise': lambda path, tmp: Model(
        dict(type='Pretrained', checkpoint=str(path))
    ).initialised(),
}


@pytest.mark.parametrize('door', DOORS)
def test_code_in_a_checkpoint_is_refused_and_named(hostile, marker, tmp_path, door):
    with pytest.raises(ValueError, match=f'{hostile}.*`posix.system`.*Nothing was run; delete it'):
        DOORS[door](hostile, tmp_path)
    assert not marker.exists()
    # The trap is a trap.
    torch.load(hostile, weights_only=False)
    assert marker.exists()


@pytest.mark.parametrize('door', [door for door in DOORS if door != 'to resume'])
def test_safetensors_come_in_by_every_door(tmp_path, door):
    path, saved = tmp_path / 'x.safetensors', Model()
    nn.init.constant_(saved.layer.weight, 7)
    save_file(saved.state_dict(), path)
    loaded = DOORS[door](path, tmp_path)
    state = loaded['state_dict'] if isinstance(loaded, dict) else loaded.state_dict()
    assert state['layer.weight'] == 7


@pytest.fixture
def downloaded(hostile, tmp_path, monkeypatch):
    """The hostile file where it lies after each way of downloading, under its address."""
    cache = tmp_path / 'hub' / 'checkpoints'
    cache.mkdir(parents=True)
    for name in ('hostile.pth', 'named.pth'):
        (cache / name).write_bytes(hostile.read_bytes())
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    names = dict(named='https://host/named.pth')
    monkeypatch.setattr(safe_files, 'get_torchvision_models', lambda: names)


@pytest.mark.parametrize(
    'address',
    ['http://host/a/hostile.pth', 'https://host/hostile.pth?x=1', 'torchvision://named'],
)
def test_downloads_and_named_weights_are_refused_too(downloaded, marker, address):
    with pytest.raises(ValueError, match='(hostile|named).pth.* `posix.system`'):
        CheckpointLoader.load_checkpoint(address)
    assert not marker.exists()


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Address of a server, and the list whose last (status, content, length) it answers."""
    answers = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            status, content, length = answers[-1]
            self.send_response(status)
            self.send_header('Content-Length', str(length))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args):
            pass

    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    monkeypatch.setenv('no_proxy', '*')
    with ThreadingHTTPServer(('127.0.0.1', 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}', answers
        server.shutdown()


def test_what_cannot_be_fetched_is_named(server, tmp_path, monkeypatch):
    host, answers = server
    answers.append((404, b'', 0))
    monkeypatch.setattr(
        safe_files, 'get_torchvision_models', lambda: dict(net='http://127.0.0.1:9/net-1.pth')
    )
    for given, address, reason in (
        (f'{host}/net.pth', f'{host}/net.pth', 'HTTP Error 404: Not Found'),
        ('torchvision://net', 'http://127.0.0.1:9/net-1.pth', '[Errno 111] Connection refused'),
    ):
        with pytest.raises(WeightsNotLoaded) as error:
            CheckpointLoader.load_checkpoint(given)
        assert error.value.given == given
        assert str(error.value) == (
            f'{address} could not be fetched: {reason}.\nFetch it by hand, where there is '
            'internet, and give the path of the file instead, or put it at '
            f'{tmp_path}/hub/checkpoints/{address.rpartition("/")[2]}'
        )


def test_what_came_instead_of_a_checkpoint_is_named(server, tmp_path):
    """A proxy's page; a download that was cut short. What is put in its place is loaded."""
    host, answers = server
    torch.save(dict(state_dict=Model().state_dict()), tmp_path / 'whole.pth')
    whole = (tmp_path / 'whole.pth').read_bytes()
    page = b'<!DOCTYPE html><html>Sign in</html>'
    for name, content in (('page.pth', page), ('cut.pth', whole[:500])):
        answers.append((200, content, len(content)))
        saved = tmp_path / 'hub' / 'checkpoints' / name
        with pytest.raises(WeightsNotLoaded) as error:
            CheckpointLoader.load_checkpoint(f'{host}/{name}')
        first, last = str(error.value).splitlines()
        assert first.startswith(f'{host}/{name} is not a checkpoint that can be loaded')
        assert last == f'It was saved as {saved}; delete that file to have it fetched again.'
        saved.write_bytes(whole)
        assert 'layer.weight' in CheckpointLoader.load_checkpoint(f'{host}/{name}')['state_dict']


@pytest.mark.parametrize('scheme', ['s3', 'a:petrel', 'pavi', 'open-mmlab', 'openmmlab', 'mmcls'])
def test_no_scheme_is_left_to_mmengine(scheme):
    prefixes = CheckpointLoader._schemes
    assert {loader.__module__ for loader in prefixes.values()} == {'mmdet_dino_r1.utils.safe_files'}
    with pytest.raises(
        ValueError, match=f'{scheme}://x.pth: .*Download the file and give its path'
    ):
        CheckpointLoader.load_checkpoint(f'{scheme}://x.pth')


def test_a_switch_in_the_environment_opens_no_door(hostile, marker, monkeypatch):
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    with pytest.raises(ValueError, match='posix.system'):
        CheckpointLoader.load_checkpoint(str(hostile))
    assert not marker.exists()


@pytest.mark.parametrize('how', ['legacy', 'pickle'])
def test_older_kinds_of_files_are_refused_too(tmp_path, marker, how):
    path, trap = tmp_path / 'x.pth', Call(eval, f'open({str(marker)!r}, "w")')
    if how == 'legacy':
        torch.save(trap, path, _use_new_zipfile_serialization=False)
    else:
        path.write_bytes(pickle.dumps(trap, protocol=2))
    with pytest.raises(ValueError, match=f'{path}.*`builtins.eval`, which runs code'):
        load_torch_file(path)
    assert not marker.exists()


def test_the_name_of_0_6_leads_here():
    assert importlib.import_module('mmdet_dino_r1.safe_files').load_torch_file is load_torch_file


def test_what_is_listed_cannot_be_led_to_code(tmp_path, marker):
    """A bare ``getattr`` among the safe names would do: from a method to its module's globals,
    a false ``np`` there whose ``array`` is ``eval``, and a log history of code."""
    code = f'open({str(marker)!r}, "w")'
    eval_ = Call(getattr, Call(getattr, getattr, '__self__'), 'eval')
    numpy = Call(OrderedDict, state=dict(array=eval_))
    globals_ = Call(getattr, HistoryBuffer.__init__, '__globals__', items=[('np', numpy)])
    torch.save([globals_, Call(HistoryBuffer, code, code)], tmp_path / 'x.pth')
    with pytest.raises(WeightsNotLoaded, match=r'x\.pth .*its use of getattr'):
        load_torch_file(tmp_path / 'x.pth')
    assert not marker.exists()


def test_a_trusted_file_is_converted_by_what_the_message_says(tmp_path, monkeypatch):
    """As DETR's authors saved theirs: the command line beside the weights."""
    path = tmp_path / 'detr.pth'
    torch.save(dict(model=dict(w=torch.ones(2)), args=Namespace(lr=1)), path)
    with pytest.raises(ValueError, match=r'detr\.pth .*`argparse\.Namespace`') as error:
        load_torch_file(path)
    assert 'If you trust who made this one' in str(error.value)
    monkeypatch.chdir(tmp_path)
    exec(str(error.value).split('\n\n', 1)[1], {})
    copy = load_torch_file('detr_weights.pth')
    assert copy.keys() == {'state_dict'} and copy['state_dict']['w'].tolist() == [1, 1]


@pytest.mark.parametrize('content', [b'', b'<html>404</html>', b'PK\x03\x04 cut'])
def test_what_is_no_checkpoint_is_said_in_one_line(tmp_path, content):
    (tmp_path / 'x.pth').write_bytes(content)
    with pytest.raises(ValueError, match=r'x\.pth is not a checkpoint') as error:
        load_torch_file(tmp_path / 'x.pth')
    assert '\n' not in str(error.value)
    with pytest.raises(FileNotFoundError, match=r'There is no checkpoint .*none\.pth'):
        load_torch_file(tmp_path / 'none.pth')


@pytest.fixture
def saved(tmp_path):
    """All that mmengine, mmdet's hooks and older versions of both put into a checkpoint."""
    history = HistoryBuffer()
    for value in (3.0, 1.0, 2.0):
        history.update(value)
    optimizer = torch.optim.AdamW(Model().parameters())
    content = dict(
        meta=dict(
            cfg='model = dict()',
            CLASSES=('cat', 'dog'),
            dataset_meta=dict(palette=[(1, 2, 3)]),
            hook_msgs=dict(best_score=np.float32(0.5), best=np.bool_(True)),
            options=ConfigDict(a=ConfigDict(b=[1])),
        ),
        state_dict=OrderedDict(w=torch.ones(2, dtype=torch.bfloat16)),
        message_hub=dict(
            log_scalars=OrderedDict(loss=history), runtime_info=dict(iter=np.int64(7), keep=[1, 2])
        ),
        optimizer=optimizer.state_dict(),
        param_schedulers=[dict(last_step=3, base_values=[np.float64(0.1)], verbose=False)],
        random=dict(numpy=np.array([1, 2**32 - 1], dtype=np.uint32), torch=torch.get_rng_state()),
    )
    torch.save(content, tmp_path / 'saved.pth')
    return tmp_path / 'saved.pth'


def renamed(path, old, new):
    """The same checkpoint by another NumPy: 2 renamed the module that a pickle names."""
    other = path.with_name('other.pth')
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(other, 'w') as target:
        for name in source.namelist():
            data = source.read(name)
            if name.endswith('/data.pkl'):
                assert old in data
                data = data.replace(old, new)
            target.writestr(name, data)
    return other


@pytest.mark.parametrize('by', ['this', 'other'])
def test_what_either_stack_saves_loads(saved, by):
    if by == 'other':
        names = b'cnumpy._core.multiarray\n', b'cnumpy.core.multiarray\n'
        is_new = np.lib.NumpyVersion(np.__version__) >= '2.0.0'
        saved = renamed(saved, *(names if is_new else names[::-1]))
    content = CheckpointLoader.load_checkpoint(str(saved), map_location='cpu')
    meta, hub = content['meta'], content['message_hub']
    assert meta['CLASSES'] == ('cat', 'dog') and meta['options'].a.b == [1]
    assert meta['hook_msgs'] == dict(best_score=0.5, best=True)
    loss = hub['log_scalars']['loss']
    assert loss.data[0].tolist() == [3.0, 1.0, 2.0]
    assert (loss.min(), loss.statistics('mean'), loss.current()) == (1.0, 2.0, 2.0)
    assert hub['runtime_info'] == dict(iter=7, keep=[1, 2])
    assert content['param_schedulers'][0]['base_values'] == [0.1]
    assert content['random']['numpy'].tolist() == [1, 4294967295]
    assert content['optimizer']['param_groups'][0]['lr'] == 0.001
