import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("oxe-tools", deadline=None, derandomize=True)
settings.load_profile("oxe-tools")


@pytest.fixture(scope="session")
def realdata() -> Path:
    folder = os.environ.get("OXE_TOOLS_REALDATA")
    if folder and Path(folder).is_dir():
        return Path(folder)
    reason = f"OXE_TOOLS_REALDATA is {f'no folder: {folder}' if folder else 'not set'}"
    if os.environ.get("CI"):
        pytest.fail(f"{reason}; CI must have the real recordings")
    pytest.skip(reason)
