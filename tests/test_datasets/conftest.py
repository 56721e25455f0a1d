import pytest
from mmengine.registry import DefaultScope


@pytest.fixture(autouse=True)
def mmdet_scope():
    """Transforms are looked up in mmdet's registries, as in a Runner."""
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield
