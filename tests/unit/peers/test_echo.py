"""C-ECHO to a real Verification SCP over loopback."""

import socket
import time
from pathlib import Path

import pytest
from pydicom.uid import CTImageStorage
from pynetdicom import AE, evt
from pynetdicom.acse import ACSE
from pynetdicom.sop_class import Verification

from pacs_ai.peers.association import Timeouts
from pacs_ai.peers.echo import EchoAnswer, echo
from tests.peers.rejecting import CALLED_NOT_RECOGNISED, CALLING_NOT_RECOGNISED, rejecting

SHORT = Timeouts(connection=3, acse=3, dimse=1, network=3)


def ask(port: int) -> EchoAnswer:
    return echo(host="127.0.0.1", port=port, called="PACS", calling="PACSAI", timeouts=SHORT)


def answer(status: int, sop_class: str = Verification) -> EchoAnswer:
    entity = AE("PACS")
    entity.require_calling_aet = ["PACSAI"]
    entity.add_supported_context(sop_class)
    server = entity.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_ECHO, lambda event: status)]
    )
    try:
        return ask(server.server_address[1])
    finally:
        server.shutdown()


def test_success_is_ok() -> None:
    found = answer(0x0000)
    assert found.ok
    assert found.detail == ""
    assert 0 < found.seconds < 5


def test_another_status_is_not_ok_and_named() -> None:
    found = answer(0x0122)
    assert not found.ok
    assert "0x0122" in found.detail


def test_a_peer_without_verification_says_so() -> None:
    found = answer(0x0000, CTImageStorage)
    assert not found.ok
    assert "Verification" in found.detail


def test_a_peer_that_does_not_know_us_says_so() -> None:
    with rejecting(CALLING_NOT_RECOGNISED) as port:
        found = ask(port)
    assert (found.ok, found.is_called) == (False, True)
    assert "Calling AE title not recognised" in found.detail


def test_a_rejection_counts_when_its_connection_ends_before_the_caller_wakes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    request = ACSE.send_request

    def late(acse: ACSE) -> None:
        request(acse)
        time.sleep(0.5)

    monkeypatch.setattr(ACSE, "send_request", late)
    with rejecting(CALLING_NOT_RECOGNISED) as port:
        found = ask(port)
    assert (found.ok, found.is_called) == (False, True)


@pytest.mark.parametrize(("source", "reason"), [(1, 0), (2, 3), (3, 9), (0, 0), (4, 1)])
def test_a_rejection_with_a_reason_outside_the_standard_is_a_rejection(
    source: int, reason: int
) -> None:
    with rejecting(bytes((1, source, reason))) as port:
        found = ask(port)
    assert (found.ok, found.is_called) == (False, True)
    assert f"source {source}, reason {reason}" in found.detail
    assert found.seconds < SHORT.acse


@pytest.mark.parametrize("result", [0, 3])
def test_a_rejection_without_a_known_result_is_a_rejection(result: int) -> None:
    with rejecting(bytes((result, 1, 4))) as port:
        found = ask(port)
    assert (found.ok, found.is_called) == (False, True)
    assert "rejected the association (Reserved)" in found.detail
    assert found.seconds < SHORT.acse


def test_an_ae_of_another_title_is_not_the_one_that_was_called() -> None:
    with rejecting(CALLED_NOT_RECOGNISED) as port:
        found = ask(port)
    assert (found.ok, found.is_called) == (False, False)


def test_nothing_there_is_not_ok() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        found = ask(probe.getsockname()[1])
    assert not found.ok
    assert "nothing answers" in found.detail


@pytest.mark.parametrize("greeting", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_a_port_that_is_not_dicom_is_not_ok_and_does_not_wait_for_ever(greeting: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.settimeout(5)
        found = ask(other.getsockname()[1]) if not greeting else _greeted(other, greeting)
    assert not found.ok
    assert found.seconds < 5


def _greeted(server: socket.socket, greeting: bytes) -> EchoAnswer:
    from threading import Thread

    def serve() -> None:
        connection, _ = server.accept()
        with connection:
            connection.sendall(greeting)
            connection.recv(1024)

    thread = Thread(target=serve)
    thread.start()
    try:
        return ask(server.getsockname()[1])
    finally:
        thread.join()


def test_no_connection_is_left_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.settimeout(5)
        before = _sockets()
        _greeted(other, b"HTTP/1.1 400 Bad Request\r\n\r\n")
        assert _sockets() <= before


def _sockets() -> set[str]:
    links = (path for path in Path("/proc/self/fd").iterdir() if path.is_symlink())
    return {link for link in (str(path.readlink()) for path in links) if "socket:" in link}
