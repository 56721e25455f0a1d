"""Packaging of mmdet_dino_r1.

mim and mmengine look for a package's configs under ``<package>/.mim``; they live in ``configs/``.
A wheel gets them as copies, written into the build folder, so that building never touches the
source tree. An editable install gets links in the source tree (git-ignored), which no wheel picks
up: wheels are made from the packages' Python files, py.typed, the web page and those copies alone.
"""

import base64
import hashlib
import os
import shutil
import zipfile
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py
from setuptools.command.develop import develop

try:
    from setuptools.command.editable_wheel import editable_wheel
except ImportError:  # setuptools < 64: pip falls back to `develop`
    editable_wheel = None

ROOT = Path(__file__).resolve().parent
NAME = 'mmdet_dino_r1'
# What lies where under <package>/.mim; `_base_ = 'mmdet_dino_r1::configs/x.py'` needs the folder
# named twice, because mmengine's pattern asks for one and looks under .mim/configs.
SHIPPED = {
    'configs': 'configs/configs',
    'configs/metafile.yml': 'configs/metafile.yml',  # where model-index.yml says, from .mim too
    'model-index.yml': 'model-index.yml',
}


def read_version() -> str:
    """Read the version without importing the package, which needs mmdet."""
    scope: dict = {}
    exec((ROOT / NAME / 'version.py').read_text(encoding='utf-8'), scope)
    return scope['__version__']


def read_requirements(name: str) -> list:
    """Lines of a requirements file, without comments and blank lines."""
    lines = (ROOT / 'requirements' / name).read_text(encoding='utf-8').splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith('#')]


def replace_by_link(link: Path, target: Path) -> None:
    """Make ``link`` point to ``target``, relatively, whatever stood there before."""
    if link.is_symlink() or link.is_file():
        link.unlink()
    elif link.is_dir():
        shutil.rmtree(link)
    link.parent.mkdir(parents=True, exist_ok=True)
    try:
        link.symlink_to(os.path.relpath(target, link.parent), target_is_directory=target.is_dir())
    except OSError:  # Windows without the right to make links: a copy, renewed at each install
        copy_shipped(target, link)


def copy_shipped(source: Path, target: Path) -> None:
    """Copy a file, or the config files of a folder."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(
            source, target, ignore=shutil.ignore_patterns('__pycache__', '*.pyc', '*.yml')
        )
    else:
        shutil.copyfile(source, target)


def link_checkout() -> None:
    """Prepare the checkout for an editable install."""
    for source, place in SHIPPED.items():
        replace_by_link(ROOT / NAME / '.mim' / place, ROOT / source)
    # onedl-mim takes the repository's root for an editable package's folder, and its scripts from
    # <root>/.mim/tools.
    replace_by_link(ROOT / '.mim' / 'tools', ROOT / NAME / 'tools')


class BuildPy(build_py):
    """Adds ``.mim`` to what is built: copies in a wheel, links in the checkout when editable."""

    def run(self):
        """Build the modules, then place what mim and mmengine look for."""
        if getattr(self, 'editable_mode', False):
            super().run()
            link_checkout()
            return
        # A build folder kept from before would add files that have been deleted or renamed since.
        target = Path(self.build_lib) / NAME
        shutil.rmtree(target, ignore_errors=True)
        super().run()
        for source, place in SHIPPED.items():
            copy_shipped(ROOT / source, target / '.mim' / place)


class Develop(develop):
    """The editable install of older tools."""

    def run(self):
        """Link, then install as ever."""
        link_checkout()
        super().run()


commands = {'build_py': BuildPy, 'develop': Develop}

if editable_wheel is not None:

    class EditableWheel(editable_wheel):
        """Tells openmim and mmengine 0.10.7 where an editable install lies.

        Both take ``site-packages/<package>``, else the path that ``top_level.txt`` names, joined
        to site-packages. An editable install has no such folder; an absolute path in
        ``top_level.txt`` leads them to the checkout. Nothing imports by that file.
        """

        def run(self):
            """Build the editable wheel, then name the checkout in it."""
            super().run()
            for wheel in Path(self.dist_dir).glob(f'{NAME}-*.whl'):
                rewrite_in_wheel(wheel, 'top_level.txt', f'{ROOT / NAME}\n'.encode())

    commands['editable_wheel'] = EditableWheel


def rewrite_in_wheel(wheel: Path, name: str, content: bytes) -> None:
    """Replace one file of a wheel's ``.dist-info``, in its RECORD too."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b'=').decode()
    rewritten = wheel.with_suffix('.tmp')
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(rewritten, 'w') as new:
        for entry in old.infolist():
            data = old.read(entry)
            if entry.filename.endswith(f'.dist-info/{name}'):
                data = content
            elif entry.filename.endswith('.dist-info/RECORD'):
                lines = [
                    f'{line.split(",")[0]},sha256={digest},{len(content)}'
                    if line.split(',')[0].endswith(f'.dist-info/{name}')
                    else line
                    for line in data.decode().splitlines()
                ]
                data = ('\n'.join(lines) + '\n').encode()
            new.writestr(entry, data)
    rewritten.replace(wheel)


setup(
    name=NAME,
    version=read_version(),
    description='DINO-R1 for MMDetection: detection by visual prompts, trained with GRQO',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8')
    if (ROOT / 'README.md').exists()
    else '',
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    keywords='object detection, visual prompts, DINO-R1, GRQO, MMDetection',
    # Also in the Makefile. pip refuses other versions; mmcv is not to be had for 3.13.
    python_requires='>=3.10,<3.13',
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Science/Research',
        'Operating System :: POSIX :: Linux',
        'Programming Language :: Python :: 3',
        *(f'Programming Language :: Python :: 3.{minor}' for minor in (10, 11, 12)),
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
        'Topic :: Scientific/Engineering :: Image Recognition',
    ],
    packages=find_packages(include=[NAME, f'{NAME}.*']),
    # As without it, but written down it makes an editable install one entry of sys.path. Otherwise
    # setuptools' finder comes after sys.path, where any folder named like the package hides it.
    package_dir={'': '.'},
    package_data={NAME: ['py.typed'], f'{NAME}.web': ['page/*']},
    # mmdet, mmengine, mmcv and torch are left out on purpose: two families of distributions
    # provide them under the same import names, and naming one would install it over the other.
    install_requires=read_requirements('runtime.txt'),
    extras_require={
        # pictures with class names in Chinese, Japanese or Korean, where the system has no font
        'fonts': ['noto-cjk-sans-jp-regular'],
        # to make text embeddings; mmdet's BERT does not work with transformers 5
        'text': ['transformers>=4.30,<5'],
        # `export_onnx` alone
        'onnx': ['onnx', 'onnxruntime', 'onnxscript'],
        # `web_demo` and `label_studio` alone
        'web': ['flask', 'waitress'],
    },
    include_package_data=False,
    zip_safe=False,
    cmdclass=commands,
)
