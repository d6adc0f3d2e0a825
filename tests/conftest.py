import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.servers import Bucket, Server, s3_server, web_server

settings.register_profile("oxe-tools", deadline=None, derandomize=True)
settings.load_profile("oxe-tools")


@pytest.fixture(scope="session", autouse=True)
def loader_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Redirect the cache of loaders to a temporary folder, in this process and its children."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OXE_TOOLS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def realdata() -> Path:
    folder = os.environ.get("OXE_TOOLS_REALDATA")
    if folder and Path(folder).is_dir():
        return Path(folder)
    reason = f"OXE_TOOLS_REALDATA is {f'no folder: {folder}' if folder else 'not set'}"
    if os.environ.get("CI"):
        pytest.fail(f"{reason}; CI must have the real recordings")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def s3_store() -> Iterator[Server]:
    with s3_server() as server:
        yield server


@pytest.fixture
def bucket(s3_store: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """Create an empty bucket that this process and its children may write to."""
    s3fs = pytest.importorskip("s3fs")
    login = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in {**login, "AWS_ENDPOINT_URL": s3_store.url}.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()  # an instance of an earlier test has that test's endpoint
    fs = s3fs.S3FileSystem(anon=False, endpoint_url=s3_store.url, use_listings_cache=False)
    name = f"bucket-{uuid.uuid4().hex}"
    fs.mkdir(name)
    yield Bucket(s3_store, name, fs)
    s3_store.faults.clear()


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Server]:
    """Serve the temporary folder of the test over HTTP."""
    with web_server(tmp_path) as server:
        yield server
