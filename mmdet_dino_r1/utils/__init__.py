"""What every ring uses: stacks, environment, safe and atomic files, randomness, device copies."""

import sys

# A folder of the package's name, above which Python was started, can pass for the package. Editable
# installs of 0.7.0 and before find the modules all the same, without what __init__ sets up.
_package = sys.modules[__name__.rpartition('.')[0]]
if _package.__spec__ and _package.__spec__.origin is None:
    raise ImportError(
        f'The folder {next(iter(_package.__path__))} passes for the package `{_package.__name__}`, '
        'whose safe loaders are then missing. Install it again (`pip install -e .` in the '
        'repository), rename that folder, or start Python elsewhere.'
    )
