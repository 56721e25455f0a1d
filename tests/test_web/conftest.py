"""A tiny model with random weights whose scores differ, and pictures as files."""

from io import BytesIO

import numpy as np
import pytest
import torch
from conftest import CONFIGS, build_tiny, tiny_model_cfg
from mmengine.config import Config
from mmengine.registry import init_default_scope
from model_variants import JOINT
from PIL import Image

from mmdet_dino_r1 import PromptBank, save_prompt_bank
from mmdet_dino_r1.apis import DINOR1Inferencer
from mmdet_dino_r1.web import shared_detector
from mmdet_dino_r1.web.shared_detector import SharedDetector


def tiny_files(root, **changes):
    """Config and checkpoint, in a folder."""
    cfg = Config.fromfile(CONFIGS / 'dino_r1_r18_shapes.py')
    cfg.model = tiny_model_cfg(**changes)
    for step in cfg.test_dataloader.dataset.pipeline:
        if step['type'] == 'Resize':
            step.scale = (64, 64)
    cfg.dump(root / 'tiny.py')
    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = build_tiny(**changes)
    for branch in model.bbox_head.cls_branches:  # scores that differ, not all at the prior
        torch.nn.init.zeros_(branch.bias)
    torch.save(dict(state_dict=model.state_dict()), root / 'tiny.pth')
    return root / 'tiny.py', root / 'tiny.pth'


@pytest.fixture(scope='session')
def model_files(tmp_path_factory):
    return tiny_files(tmp_path_factory.mktemp('tiny'))


@pytest.fixture(scope='session')
def inferencer(model_files):
    return DINOR1Inferencer(*model_files, 'cpu', show_progress=False)


@pytest.fixture
def make_bank(inferencer, tmp_path):
    """Writes a bank of classes with random rows, as this model might have made it."""

    def make(*classes):
        rows = torch.randn(len(classes), 256, generator=torch.Generator().manual_seed(0))
        bank = PromptBank(classes, rows, inferencer.made_with)
        return save_prompt_bank(bank, tmp_path / 'bank.safetensors')

    return make


@pytest.fixture(scope='session')
def joint_inferencer(tmp_path_factory):
    """The boxes of a class on a picture make one prompt together."""
    files = tiny_files(tmp_path_factory.mktemp('joint'), **JOINT)
    return DINOR1Inferencer(*files, 'cpu', show_progress=False)


@pytest.fixture(scope='session')
def photos(tmp_path_factory):
    """Files '0.png', '1.png' and '2.png' of 80 x 60 pixels of noise."""
    root = tmp_path_factory.mktemp('photos')
    for seed in range(3):
        (root / f'{seed}.png').write_bytes(encoded(seed))
    return root


@pytest.fixture(scope='session')
def encode():
    return encoded


def encoded(seed, size=(80, 60), format='PNG', **options):
    """A picture's file; ``size`` is width and height."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).save(file, format, **options)
    return file.getvalue()


@pytest.fixture
def tuned_for(monkeypatch):
    """Lets the steps of a tuning be chosen, which the page does not: few of them, or very many."""
    genuine = shared_detector.tune_references

    def choose(steps):
        def quick(*args, **options):
            return genuine(*args, **options | dict(steps=steps, batch_size=2))

        monkeypatch.setattr(shared_detector, 'tune_references', quick)

    choose(3)
    return choose


@pytest.fixture(scope='module')
def address(inferencer):
    from opened_page import serving

    with serving(SharedDetector(inferencer)) as address:
        yield address


@pytest.fixture(scope='module')
def downloads(tmp_path_factory):
    return tmp_path_factory.mktemp('downloads')


@pytest.fixture(scope='module')
def browser(tmp_path_factory, downloads):
    from opened_page import CHROMEDRIVER, CHROMIUM, FLAGS
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    profile = tmp_path_factory.mktemp('profile')
    for flag in (*FLAGS.split(), f'--user-data-dir={profile}'):
        options.add_argument(flag)
    options.add_experimental_option('prefs', {'download.default_directory': str(downloads)})
    options.set_capability('goog:loggingPrefs', dict(browser='ALL'))
    service = webdriver.ChromeService(executable_path=CHROMEDRIVER)
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


@pytest.fixture
def page(browser, address):
    from opened_page import Page

    page = Page(browser, address)
    yield page
    complaints = [entry['message'] for entry in browser.get_log('browser')]
    # a refused upload is logged by the browser itself
    assert not [text for text in complaints if 'status of 400' not in text]
