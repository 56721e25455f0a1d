"""Say what a checkpoint gave the model, what it did not, and why; take PET-DINO's as it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from mmengine.logging import print_log
from torch import Tensor, nn

from ...utils.checkpoint_fit import UnfitCheckpoint, misfits
from ...utils.pet_dino_keys import is_pet_dino, our_names

# Parts of Grounding DINO that not every model of ours has, and why.
_WITHOUT = {
    ('language_model', 'text_feat_map'): 'visual prompts take the place of text',
    ('encoder.text_layers', 'encoder.fusion_layers', 'cross_attn_text'): (
        'with fusion=False image and decoder do not see the prompts; norms.1 is part of it'
    ),
}
# What a model must have that PET-DINO's weights go into.
_PET_DINO = dict(fusion=False, prompts_from='memory')
# Sizes that a user may choose: num_classes, num_queries, the width of texts.
_MAY_DIFFER = ('dn_query_generator.', 'query_embedding.', 'text_feat_map.')
_SHOWN = 3


def warm_start_report(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """Compare a model's own state with the one that a checkpoint gives, in lines.

    They name what is loaded, what is new here (keeps its initial values), what is ignored, and
    what has another shape and therefore is not loaded.
    """
    shared = {name: own[name] for name in sorted(own.keys() & given.keys())}
    changed = misfits(shared, {name: given[name] for name in shared})
    lines = [f'loaded: {len(shared) - len(changed)} of {len(own)} tensors']
    if new := own.keys() - given.keys():
        lines.append(f'new, keeps its initial values: {_by_module(new)}')
    if ignored := given.keys() - own.keys():
        lines.append(f'ignored, not part of this model: {_by_module(ignored)}')
        for parts, reason in _WITHOUT.items():
            if found := [part for part in parts if _has(ignored, part) and not _has(own, part)]:
                lines.append(f'  ({", ".join(found)}: {reason})')
    lines += [f'NOT loaded, shape differs: {line}' for line in changed]
    return '\n'.join(f'  {line}' for line in lines)


def report_when_loading(model: nn.Module) -> None:
    """Print the report whenever a checkpoint is loaded into a ``DINOR1`` (a hook on it).

    PET-DINO's are taken as they are, or refused by ``UnfitCheckpoint`` where they do not fit.
    """

    def report(module, state_dict, prefix, *_) -> None:
        given = {
            name.removeprefix(prefix): value
            for name, value in state_dict.items()
            if name.startswith(prefix)
        }
        own = module.state_dict()
        if is_pet_dino(given):
            for name in given:
                del state_dict[prefix + name]
            given = our_names(given)
            _refuse_unfit_pet_dino(module, own, given)
            # the report has the others in two lines, mmengine's warning would name each
            kept = own.keys() & given.keys()
            state_dict.update({prefix + name: given[name] for name in kept})
        said = f'{type(module).__name__} from checkpoint:\n{warm_start_report(own, given)}'
        print_log(said, logger='current')

    # public, and without with_module, from PyTorch 2.5 on
    model._register_load_state_dict_pre_hook(report, with_module=True)


def _refuse_unfit_pet_dino(
    model: nn.Module, own: Mapping[str, Tensor], given: Mapping[str, Tensor]
) -> None:
    """UnfitCheckpoint, with the configs that fit, where PET-DINO's weights would mean nothing."""
    wrong = [
        f'model.{key}={getattr(model, key)!r}, they need {value!r}'
        for key, value in _PET_DINO.items()
        if getattr(model, key) != value
    ]
    if not model.prompt_encoder.joint:
        kind = type(model.prompt_encoder).__name__
        wrong.append(f"model.prompt_encoder.type='{kind}', they need 'JointPromptEncoder'")
    if not wrong:  # the size may be another one
        needed = {
            name: value
            for name, value in own.items()
            if name.startswith('prompt_encoder.')
            or (name in given and not name.startswith(_MAY_DIFFER))
        }
        wrong = misfits(needed, {name: given[name] for name in needed.keys() & given.keys()})
        if more := wrong[_SHOWN:]:
            wrong[_SHOWN:] = [f'and {len(more)} more']
    if wrong:
        size = 'l' if len(given.get('level_embed', ())) > 4 else 't'
        lines = [
            f"PET-DINO's weights (Swin-{size.upper()}) are not of this model:",
            *(f'  {line}' for line in wrong),
            f'Use a config with their model: pet_dino_swin_{size}_finetune.py (your own data), '
            f'pet_dino_swin_{size}_zeroshot_coco.py (tests), dino_r1_swin_{size}_from_pet_dino_'
            'finetune.py (training with GRQO); or inherit from one of them. See docs/weights.md.',
        ]
        raise UnfitCheckpoint('\n'.join(lines))


def _has(names: Iterable[str], part: str) -> bool:
    return any(part in name for name in names)


def _by_module(names: Iterable[str]) -> str:
    """Names grouped by their first part, with how many tensors each has."""
    counts = Counter(name.split('.')[0] for name in names)
    return ', '.join(f'{part} ({n})' for part, n in sorted(counts.items()))
