"""Say what a checkpoint gave the model, what it did not, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from mmengine.logging import print_log
from torch import Tensor, nn

# parts of Grounding DINO that visual prompts replace
REPLACED_BY_PROMPTS = ('language_model', 'text_feat_map')


def warm_start_report(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """Compare a model's own state with the one that a checkpoint gives, in lines.

    They name what is loaded, what is new here (keeps its initial values), what is ignored, and
    what has another shape and therefore is not loaded.
    """
    shared = own.keys() & given.keys()
    misfits = sorted(name for name in shared if own[name].shape != given[name].shape)
    lines = [f'loaded: {len(shared) - len(misfits)} of {len(own)} tensors']
    if new := own.keys() - given.keys():
        lines.append(f'new, keeps its initial values: {_by_module(new)}')
    if ignored := given.keys() - own.keys():
        lines.append(f'ignored, not part of this model: {_by_module(ignored)}')
        replaced = [
            part for part in REPLACED_BY_PROMPTS if any(n.startswith(part) for n in ignored)
        ]
        if replaced:
            lines.append(f'  ({" and ".join(replaced)}: visual prompts take the place of text)')
    lines += [
        f'NOT loaded, shape differs: {name}: checkpoint {tuple(given[name].shape)}, '
        f'model {tuple(own[name].shape)}'
        for name in misfits
    ]
    return '\n'.join(f'  {line}' for line in lines)


def report_when_loading(model: nn.Module) -> None:
    """Print the report whenever a checkpoint is loaded into ``model`` (a hook on it)."""

    def report(module, state_dict, prefix, *_) -> None:
        given = {
            name.removeprefix(prefix): value
            for name, value in state_dict.items()
            if name.startswith(prefix)
        }
        print_log(
            f'{type(module).__name__} from checkpoint:\n'
            + warm_start_report(module.state_dict(), given),
            logger='current',
        )

    # public, and without with_module, from PyTorch 2.5 on
    model._register_load_state_dict_pre_hook(report, with_module=True)


def _by_module(names: Iterable[str]) -> str:
    """Names grouped by their first part, with how many tensors each has."""
    counts = Counter(name.split('.')[0] for name in names)
    return ', '.join(f'{part} ({n})' for part, n in sorted(counts.items()))
