"""What importing this package adds to importing mmdet, in fresh interpreters."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

from .measure import in_turn

# `import mmdet` alone brings little; whoever builds a model has all of these
IMPORTED_BEFORE = {
    'import mmdet': ('mmdet',),
    'all of mmdet that a training imports': (
        'mmdet',
        'mmdet.models',
        'mmdet.datasets',
        'mmdet.engine',
        'mmdet.evaluation',
        'mmdet.visualization',
    ),
}
_SCRIPT = """
import importlib, json, sys, time
before, package = sys.argv[1].split(','), sys.argv[2]
start = time.perf_counter()
for name in before:
    importlib.import_module(name)
middle = time.perf_counter()
importlib.import_module(package)
end = time.perf_counter()
print(json.dumps(dict(before=middle - start, added=end - middle)))
"""


def import_figures(rounds: int, package: str = 'mmdet_dino_r1') -> dict[str, dict[str, float]]:
    """Seconds that importing takes, each time in a new interpreter, the cases in turn.

    Args:
        rounds: how often each case is timed.
        package: what is imported afterwards.

    Returns:
        By case of ``IMPORTED_BEFORE``: ``before``, the seconds of mmdet's own part, and ``added``,
        those of the package after it.
    """

    def job(before: tuple[str, ...]) -> Callable[[], dict]:
        def run() -> dict:
            command = [sys.executable, '-c', _SCRIPT, ','.join(before), package]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            return json.loads(done.stdout.splitlines()[-1])

        return run

    return in_turn({case: job(before) for case, before in IMPORTED_BEFORE.items()}, rounds)
