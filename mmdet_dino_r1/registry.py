"""Registry scope ``mmdet_dino_r1``: empty children of mmdet's registries.

Everything of this package is registered in mmdet's own registries, and configs use the scope
``mmdet``. But mmengine stamps a base config taken as ``mmdet_dino_r1::configs/x.py`` with
``_scope_ = 'mmdet_dino_r1'`` and then looks for registries of that scope; it finds these, which
pass every name on to mmdet's.
"""

import mmdet.registry
from mmengine.registry import Registry

_LOCATIONS = [
    f'{package}.{part}'
    for package in ('mmdet', 'mmdet_dino_r1')
    for part in ('datasets', 'engine', 'evaluation', 'models')
]

REGISTRIES = {
    attribute: Registry(parent.name, parent=parent, scope='mmdet_dino_r1', locations=_LOCATIONS)
    for attribute, parent in vars(mmdet.registry).items()
    if isinstance(parent, Registry) and parent.scope == 'mmdet'  # not its imports from mmengine
}
