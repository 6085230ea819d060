"""What every test may use."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared():
    """The folder of goldens and real data beside the repository (`RSN_SHARED` overrides)."""
    folder = Path(os.environ.get("RSN_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        missing = f"{folder} is missing: real data and goldens belong there"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    return folder
