"""The pretended device, and what the tests on it hold."""

import pytest
import torch
from pretended_device import host_of, pretending


@pytest.fixture
def device():
    """What is counted, while the pretended device exists."""
    with pretending() as traffic:
        yield traffic


@pytest.fixture
def assert_equal():
    """Holds tensors on the device, or nests of them, against those of the CPU."""

    def compare(found, expected, rtol=1e-5, atol=1e-5):
        if isinstance(expected, dict):
            assert found.keys() == expected.keys()
            for name, value in expected.items():
                compare(found[name], value, rtol, atol)
        else:
            found, expected = host_of(found), torch.as_tensor(expected)
            torch.testing.assert_close(found, expected, rtol=rtol, atol=atol)

    return compare
