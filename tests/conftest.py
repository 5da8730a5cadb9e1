"""What every test may rely on: strict writing of DICOM, and the shared images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import config
from pynetdicom.transport import AssociationSocket

from pacs_ai.pixels.decoder import DECODER
from tests.peers.postgresql import Cluster, add_template, running_cluster

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let ``make fuzz`` say how many damaged inputs, and which; ``make sheets`` where they go."""
    parser.addoption("--sheets", help="folder for the contact sheets, to be looked at")
    parser.addoption("--fuzz-count", type=int, default=100_000, help="inputs of the long fuzz")
    parser.addoption("--fuzz-seed", type=int, default=1, help="what they are made from")


@pytest.fixture(scope="session", autouse=True)
def _strict_writing() -> Iterator[None]:
    """A value that its VR forbids cannot be written anywhere in the session (PS3.5 section 6.2)."""
    former = config.settings.writing_validation_mode
    config.settings.writing_validation_mode = config.RAISE
    yield
    config.settings.writing_validation_mode = former


@pytest.fixture(scope="session", autouse=True)
def _stock_connections_closed() -> Iterator[None]:
    """pynetdicom's own connection is closed even where its peer was the first to end it.

    The library (3.0) leaves it to the garbage collector then, whose warning would fail whatever test runs
    by that time. What the project makes of that class closes by itself, and is not touched.
    """
    former = AssociationSocket._shutdown_socket

    def shut_down(stock: AssociationSocket) -> None:
        former(stock)
        if type(stock) is AssociationSocket and stock.socket is not None:
            stock.socket.close()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AssociationSocket, "_shutdown_socket", shut_down)
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real images beside the checkout; its absence is a failure, never a skip."""
    if not (SHARED_DATA / "README.md").is_file():
        pytest.fail("the shared images are not beside the checkout: put them at ../shared/data")
    return SHARED_DATA


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[Cluster]:
    """A PostgreSQL server of the session's own."""
    with running_cluster() as cluster:
        add_template(cluster)
        yield cluster


@pytest.fixture
def postgresql(postgresql_server: Cluster) -> Iterator[Cluster]:
    """The server; the ledgers that a test lent are empty again after it."""
    yield postgresql_server
    postgresql_server.take_back()


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a fresh ledger; every test that asks runs on SQLite and on PostgreSQL."""
    if request.param == "postgresql":
        cluster: Cluster = request.getfixturevalue("postgresql")
        return cluster.url(cluster.lend_ledger())
    return f"sqlite:///{tmp_path / 'ledger.sqlite'}"


@pytest.fixture
def one_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let one decoder child serve every Job: to start one for each takes longer than what is looked at.

    That each has its own is told in ``tests/unit/pixels/test_child.py``.
    """
    monkeypatch.setattr(DECODER, "close", lambda: None)
