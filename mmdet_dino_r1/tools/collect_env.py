"""The environment, for a bug report: ``mim run mmdet_dino_r1 collect_env``.

It also works where ``import mmdet_dino_r1`` refuses the environment, and tells why.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

# Run by its path, as mim does, this file must not run the package's __init__, which refuses a
# broken environment: an empty package stands in for it.
if 'mmdet_dino_r1' not in sys.modules:
    sys.modules['mmdet_dino_r1'] = ModuleType('mmdet_dino_r1')
    sys.modules['mmdet_dino_r1'].__path__ = [str(Path(__file__).resolve().parents[1])]

from mmdet_dino_r1.config.shipped import config_root  # noqa: E402
from mmdet_dino_r1.utils.environment import answer_or_error, collect_environment  # noqa: E402


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    argparse.ArgumentParser(
        prog='collect_env', description='Versions and devices: paste them into a bug report.'
    ).parse_args(args)
    report = {'shipped configs': answer_or_error(config_root)} | collect_environment()
    text = '\n'.join(f'{name}: {value}' for name, value in report.items())
    text = re.sub(rf'(?<!\w){re.escape(str(Path.home()))}(?=/)', '~', text)
    print(re.sub(r'\n\s*\n', '\n', text))
    return 0


if __name__ == '__main__':
    sys.exit(main())
