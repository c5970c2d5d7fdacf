"""Fixtures of the catalogue tests."""

from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture
def shared_data() -> Path:
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no {SHARED_DATA}: the real catalogues are not part of the project")
    return SHARED_DATA
