"""DICOM over TLS as real peers speak it: who gets in, who does not, and what a silent one costs."""

from __future__ import annotations

import os
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE, build_context
from pynetdicom.association import Association

from listener.tls import HANDSHAKE
from pacs_ai.settings import loads
from tests.authority import Authority, Certificate
from tests.integration import wire
from tests.integration.listening import (
    CALLED,
    CALLING,
    CT,
    Listening,
    encoded,
    image,
    listening,
    send,
    write_settings,
)
from tests.peers import require
from tests.peers.dcmtk import storescu
from tests.peers.orthanc import wait_for

MODALITY, SECOND = "modality", "second"


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("hospital"))


@pytest.fixture(scope="module")
def gateway(hospital: Authority) -> Certificate:
    return hospital.issue("gateway")


@pytest.fixture(scope="module")
def modality(hospital: Authority) -> Certificate:
    return hospital.issue("modality", names="DNS:ct1.hospital.test")


@pytest.fixture(scope="module")
def second(hospital: Authority) -> Certificate:
    return hospital.issue("second", names="DNS:second.hospital.test")


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory,
    transport: str,
    hospital: Authority,
    gateway: Certificate,
    modality: Certificate,
) -> Iterator[Listening]:
    """A listener with mutual TLS: one peer is bound by fingerprint, one by name."""
    folder = tmp_path_factory.mktemp("gateway")
    tls = {"certificate": str(gateway.file), "key": str(gateway.key)}
    values = yaml.safe_load(
        write_settings(folder, transport=transport, client_authorities=str(hospital.file), **tls)
    )
    values["peers"] = {
        MODALITY: {"ae_titles": [CALLING], "certificates": [modality.fingerprint]},
        SECOND: {"ae_titles": ["SECOND"], "certificates": ["dns:Second.hospital.test"]},
        "unbound": {"ae_titles": ["UNBOUND"], "certificates": []},
    }
    with listening(loads(yaml.safe_dump(values))) as started:
        yield started


def _client(hospital: Authority, shown: Certificate | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(hospital.file))
    if shown is not None:
        context.load_cert_chain(shown.file, shown.key)
    return context


@contextmanager
def _associated(port: int, context: ssl.SSLContext) -> Iterator[Association]:
    """Open an association by pynetdicom for the length of the block."""
    entity = AE(CALLING)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 20
    asked = [build_context(CT, ExplicitVRLittleEndian), build_context(wire.VERIFICATION)]
    opened = entity.associate(
        "127.0.0.1", port, contexts=asked, ae_title=CALLED, tls_args=(context, "127.0.0.1")
    )
    assert opened.is_established
    yield opened
    opened.release()
    entity.shutdown()


def _s_client(port: int, *options: str | Path, said: bytes = b"") -> str:
    """Return what OpenSSL's client says of a handshake."""
    asked = subprocess.run(
        [require("openssl"), "s_client", "-connect", f"127.0.0.1:{port}", *options],
        input=said or b"Q\n",
        capture_output=True,
        timeout=20,
        check=False,
    )
    return (asked.stdout + asked.stderr).decode(errors="replace")


def _shown(modality: Certificate) -> tuple[str | Path, ...]:
    return ("-cert", modality.file, "-key", modality.key)


# ---------------------------------------------------------------------- who gets in


def test_dcmtk_stores_over_tls(
    running: Listening, hospital: Authority, modality: Certificate, tmp_path: Path
) -> None:
    sent = image(PixelData=b"\x00\x01" * 8, SOPInstanceUID=generate_uid())
    sent.BitsAllocated = sent.BitsStored = 16
    sent["PixelData"].VR = "OW"
    sent.file_meta = _meta(sent)
    sent.save_as(tmp_path / "one.dcm", enforce_file_format=True)
    tls = ("+tls", str(modality.key), str(modality.file), "+cf", str(hospital.file))
    storescu([tmp_path / "one.dcm"], *tls, port=running.port, called=CALLED, calling=CALLING)
    held = {one["SOPInstanceUID"] for one in running.instances()}
    assert sent.SOPInstanceUID in held


def _meta(data_set: Any) -> Any:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = data_set.SOPClassUID
    meta.MediaStorageSOPInstanceUID = data_set.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return meta


def test_an_instance_of_many_records_arrives_whole(
    running: Listening, hospital: Authority, modality: Certificate
) -> None:
    with _associated(running.port, _client(hospital, modality)) as opened:
        for size in (2, 16_384, 5_000_000):
            sent = image()
            sent.add_new("PixelData", "OB", os.urandom(size))
            data = encoded(sent)
            assert send(opened, data, sop_instance=sent.SOPInstanceUID).Status == 0x0000
            assert any(one.read_bytes().endswith(data) for one in running.files())


def test_a_peer_bound_by_name_gets_in(
    running: Listening, hospital: Authority, second: Certificate
) -> None:
    wire.echo(running.port, "SECOND", CALLED, _client(hospital, second))


@pytest.mark.parametrize(
    ("certificate", "calling"), [("second", CALLING), ("modality", "SECOND"), ("second", "UNBOUND")]
)
def test_another_peers_certificate_is_rejected_for_good(
    running: Listening,
    hospital: Authority,
    certificate: str,
    calling: str,
    request: pytest.FixtureRequest,
    caplog: pytest.LogCaptureFixture,
) -> None:
    shown = request.getfixturevalue(certificate)
    answer = wire.rejection(running.port, calling, CALLED, _client(hospital, shown))
    assert answer == wire.CALLING_NOT_RECOGNISED
    assert "certificate" in caplog.text
    assert "hospital.test" not in caplog.text


def test_no_certificate_and_a_strangers_get_no_association(
    running: Listening, hospital: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stranger = Authority(tmp_path / "stranger").issue("modality", names="DNS:ct1.hospital.test")
    for shown in (None, stranger, hospital.issue("ended", days=-1)):
        # With TLS 1.3 a client learns only when it reads that it is not wanted.
        with pytest.raises((ssl.SSLError, ConnectionError)):
            wire.echo(running.port, CALLING, CALLED, _client(hospital, shown))
    wait_for(  # the client hears of it first
        lambda: caplog.text.count("a TLS handshake failed") == 3,
        seconds=5,
        what="three lines of log",
    )
    assert "association" not in caplog.text


def test_plain_dicom_gets_nothing_on_the_tls_port(running: Listening) -> None:
    with wire.connect(running.port) as sock, suppress(ConnectionResetError):
        sock.sendall(wire.associate(CALLING, CALLED, [(1, wire.VERIFICATION, wire.IMPLICIT)]))
        assert sock.recv(1) in (b"", b"\x15")  # nothing, or a TLS alert


# ---------------------------------------------------------------------- which TLS


def test_tls_is_1_3_where_the_peer_can_and_1_2_at_least(
    running: Listening, modality: Certificate
) -> None:
    shown = _shown(modality)
    assert "TLSv1.3" in _s_client(running.port, "-brief", *shown)
    assert "TLSv1.2" in _s_client(running.port, "-brief", "-tls1_2", *shown)
    old = _s_client(running.port, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0", *shown)
    assert "Cipher is (NONE)" in old


@pytest.mark.parametrize("cipher", ["AES256-GCM-SHA384", "ECDHE-ECDSA-AES256-SHA384"])
def test_ciphers_without_forward_secrecy_or_authentication_are_refused(
    running: Listening, modality: Certificate, cipher: str
) -> None:
    said = _s_client(running.port, "-tls1_2", "-cipher", cipher, *_shown(modality))
    assert "Cipher is (NONE)" in said


def test_nothing_is_negotiated_again(running: Listening, modality: Certificate) -> None:
    said = _s_client(running.port, "-tls1_2", *_shown(modality), said=b"R\n")
    assert "RENEGOTIATING" in said
    assert "no renegotiation" in said


# ---------------------------------------------------------------------- handshakes that stop


def test_a_handshake_that_stops_keeps_nobody_waiting_and_is_over_in_time(
    running: Listening, hospital: Authority, modality: Certificate
) -> None:
    with wire.connect(running.port, seconds=HANDSHAKE + 3) as silent:
        began = time.monotonic()
        wire.echo(running.port, CALLING, CALLED, _client(hospital, modality))
        assert time.monotonic() - began < HANDSHAKE - 1
        assert silent.recv(1) == b""


# ---------------------------------------------------------------------- new certificates


def test_a_new_certificate_is_shown_without_a_restart(
    transport: str, hospital: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own, new = hospital.issue("own"), hospital.issue("new")
    tls = {"certificate": str(own.file), "key": str(own.key)}
    settings = loads(write_settings(tmp_path, transport=transport, **tls))
    context = _client(hospital, None)

    def shown() -> bytes | None:
        with wire.connect(settings.listener.port, tls=context) as sock:
            assert isinstance(sock, ssl.SSLSocket)
            return sock.getpeercert(binary_form=True)

    first = own.encoded
    with listening(settings) as running, _associated(running.port, context) as held:
        assert shown() == first
        own.file.write_bytes(new.file.read_bytes())  # its key is still to come
        assert shown() == first
        assert shown() == first
        assert caplog.text.count("the former one stays") == 1
        own.key.write_bytes(new.key.read_bytes())
        assert shown() == new.encoded != first
        assert held.send_c_echo().Status == 0x0000  # who is in stays in
