"""The web role off loopback: TLS of today's kind, a token for everything, names that are known."""

from __future__ import annotations

import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from http.client import HTTPSConnection
from pathlib import Path

import psutil
import pytest
import requests
from dicomweb_client import DICOMwebClient
from pydicom import dcmread

from pacs_ai.ledger.tokens import Scope, Tokens
from pacs_ai.settings import Web as WebSettings
from pacs_ai.web.connections import SHAKING
from tests.authority import Authority
from tests.integration.listening import image
from tests.integration.test_stow import Web, file_of, running_web
from tests.peers import require

# An address of this machine alone that the settings do not count as loopback.
ADDRESS = "127.0.0.2"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("certificate")
    made, key = folder / "web.pem", folder / "web.key"
    subprocess.run(
        [
            *(require("openssl"), "req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"),
            *("-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", "/CN=gateway.test"),
            *("-addext", f"subjectAltName=DNS:gateway.test,IP:{ADDRESS}"),
            *("-keyout", key, "-out", made),
        ],
        check=True,
        capture_output=True,
    )
    return made, key


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory, certificate: tuple[Path, Path]) -> Iterator[Web]:
    made, key = map(str, certificate)
    folder = tmp_path_factory.mktemp("web")
    tls = {"host": ADDRESS, "certificate": made, "key": key, "names": ["gateway.test"]}
    with running_web(folder, listener={}, **tls) as running:
        yield running


def _url(web: Web, path: str) -> str:
    return f"https://{ADDRESS}:{web.port}{path}"


def test_a_client_that_knows_the_certificate_stores(
    web: Web, certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "one.dcm").write_bytes(file_of(image()))
    sent = dcmread(tmp_path / "one.dcm")
    session = requests.Session()
    session.trust_env = False
    session.verify = str(certificate[0])
    session.headers["Authorization"] = f"Bearer {web.token}"
    client = DICOMwebClient(_url(web, "/dicom-web"), session=session)
    (stored,) = client.store_instances([sent]).ReferencedSOPSequence
    assert stored.ReferencedSOPInstanceUID == sent.SOPInstanceUID
    session.close()


@pytest.mark.parametrize("path", ["/status", "/health", "/dicom-web/workitems"])
def test_nothing_is_read_without_a_token(
    web: Web, certificate: tuple[Path, Path], path: str
) -> None:
    assert requests.get(_url(web, path), verify=certificate[0], timeout=10).status_code == 401
    scope = Scope.WORKLIST if "workitems" in path else Scope.STATUS
    tokens = Tokens(web.running.ledger.database)
    token, _ = tokens.create("viewer", scope=scope, lifetime=None, actor="test")
    headers = {"Authorization": f"Bearer {token}"}
    answer = requests.get(_url(web, path), verify=certificate[0], headers=headers, timeout=10)
    assert answer.status_code in (200, 204)


def test_a_new_certificate_is_shown_without_a_restart(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    own, new = authority.issue("own"), authority.issue("new")
    first = own.encoded
    context = ssl.create_default_context(cafile=authority.file)
    tls = {"certificate": str(own.file), "key": str(own.key)}
    with running_web(tmp_path, listener={}, **tls) as running:

        def shown() -> bytes | None:
            with (
                socket.create_connection(("127.0.0.1", running.port), 10) as plain,
                context.wrap_socket(plain, server_hostname="127.0.0.1") as sock,
            ):
                return sock.getpeercert(binary_form=True)

        assert shown() == first
        own.key.write_bytes(new.key.read_bytes())  # its certificate is still to come
        assert shown() == first
        own.file.write_bytes(new.file.read_bytes())
        assert shown() == new.encoded != first


def test_only_names_of_the_settings_are_answered(web: Web, certificate: tuple[Path, Path]) -> None:
    def ask(name: str) -> int:
        headers = {"Host": name}
        return requests.get(
            _url(web, "/health"), verify=certificate[0], headers=headers, timeout=10
        ).status_code

    assert ask("gateway.test") == 401
    assert ask("evil.example") == 400


def _asked_in(web: Web, version: ssl.TLSVersion) -> int:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version, context.maximum_version = version, version
    context.set_ciphers("ALL:@SECLEVEL=0")
    connection = HTTPSConnection(ADDRESS, web.port, context=context, timeout=10)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_tls_is_1_2_or_later(web: Web) -> None:
    assert _asked_in(web, ssl.TLSVersion.TLSv1_2) == 401
    assert _asked_in(web, ssl.TLSVersion.TLSv1_3) == 401
    with pytest.raises(ssl.SSLError):
        _asked_in(web, ssl.TLSVersion.TLSv1_1)


def test_a_cipher_without_forward_secrecy_is_refused(web: Web) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AES128-SHA:AES256-GCM-SHA384:ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0")
    connection = HTTPSConnection(ADDRESS, web.port, context=context, timeout=10)
    with pytest.raises(ssl.SSLError):
        connection.request("GET", "/health")
    connection.close()


def test_plain_http_gets_nothing(web: Web) -> None:
    with pytest.raises(requests.ConnectionError):
        requests.get(f"http://{ADDRESS}:{web.port}/health", timeout=10)


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"host": "192.0.2.1"}, "web.certificate"),
        ({"host": "0.0.0.0"}, "web.certificate"),  # noqa: S104
        ({"certificate": "a.pem"}, "belong together"),
        ({"host": "0.0.0.0", "certificate": "a.pem", "key": "a.key"}, "web.names"),  # noqa: S104
    ],
)
def test_an_unsafe_address_is_refused(values: dict[str, str], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        WebSettings.model_validate(values)


def test_a_handshake_that_does_not_come_is_not_waited_for(web: Web) -> None:
    with socket.create_connection((ADDRESS, web.port), timeout=15) as silent:
        began = time.monotonic()
        with suppress(ConnectionError):
            assert silent.recv(1) == b""
        assert time.monotonic() - began < 10


def _descriptors(port: int) -> int:
    """Return how many files the process that listens at a port has open."""
    (listens,) = (
        one.pid
        for one in psutil.net_connections("tcp4")
        if one.status == psutil.CONN_LISTEN and one.laddr[1] == port
    )
    return psutil.Process(listens).num_fds()


def test_handshakes_that_do_not_come_are_bounded_and_keep_nobody_out(
    web: Web, certificate: tuple[Path, Path]
) -> None:
    context = ssl.create_default_context(cafile=certificate[0])
    before = _descriptors(web.port)
    with ExitStack() as stack:
        for number in range(3 * SHAKING):
            stack.enter_context(socket.create_connection((ADDRESS, web.port), timeout=15))
            if number % 20:
                continue
            began = time.monotonic()
            with (
                socket.create_connection((ADDRESS, web.port), timeout=15) as raw,
                context.wrap_socket(raw, server_hostname="gateway.test") as good,
            ):
                good.sendall(b"GET /status HTTP/1.1\r\nHost: gateway.test\r\n\r\n")
                assert good.recv(64).startswith(b"HTTP/1.1 401 ")
            assert time.monotonic() - began < 1
        assert _descriptors(web.port) - before < 1.5 * SHAKING


def test_a_head_that_does_not_come_is_not_waited_for(
    web: Web, certificate: tuple[Path, Path]
) -> None:
    context = ssl.create_default_context(cafile=certificate[0])
    with (
        socket.create_connection((ADDRESS, web.port), timeout=15) as raw,
        context.wrap_socket(raw, server_hostname="gateway.test") as half,
    ):
        half.sendall(b"GET /status HTTP/1.1\r\n")
        began = time.monotonic()
        with suppress(ConnectionError, ssl.SSLEOFError):
            assert half.recv(1) == b""
        assert 8 < time.monotonic() - began < 13
