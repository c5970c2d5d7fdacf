import pytest
from accelerate.state import AcceleratorState


@pytest.fixture(scope="module")
def own_precision():
    """Precision is set once per process: a module's runs neither find nor leave one."""
    AcceleratorState._reset_state(True)
    yield
    AcceleratorState._reset_state(True)
