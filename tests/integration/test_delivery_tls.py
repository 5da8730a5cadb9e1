"""Results over TLS: DCMTK and Orthanc take them, and whoever is not the destination gets nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import generate_uid

from pacs_ai.delivery import Answer
from pacs_ai.delivery.storage import send
from pacs_ai.peers.echo import echo
from pacs_ai.peers.find import find_study
from pacs_ai.settings import ClientTLS, DicomDestination
from tests.authority import Authority, Certificate
from tests.integration.test_delivery_dcmtk import outgoing
from tests.peers import free_port
from tests.peers.dcmtk import storescp
from tests.peers.orthanc import orthanc


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("hospital"))


@pytest.fixture(scope="module")
def gateway(hospital: Authority) -> Certificate:
    return hospital.issue("gateway", names="DNS:gateway.hospital.test")


@pytest.fixture(scope="module")
def archive(hospital: Authority) -> Certificate:
    return hospital.issue("archive", names="DNS:archive.hospital.test,IP:127.0.0.1")


@pytest.fixture(scope="module")
def port(
    tmp_path_factory: pytest.TempPathFactory, hospital: Authority, archive: Certificate
) -> Iterator[int]:
    """A Storage SCP of DCMTK that asks for a certificate."""
    tls = ("+tls", str(archive.key), str(archive.file), "+cf", str(hospital.file))
    with storescp(tmp_path_factory.mktemp("scp") / "received", *tls) as running:
        yield running


def _tls(hospital: Authority, gateway: Certificate | None, **other: Any) -> ClientTLS:
    own = {} if gateway is None else {"certificate": gateway.file, "key": gateway.key}
    return ClientTLS.model_validate({"authorities": hospital.file, **own, **other})


def _sent(port: int, tls: ClientTLS | None, host: str = "127.0.0.1") -> tuple[Answer, str]:
    to = DicomDestination(host=host, port=port, ae_title="STORESCP", tls=tls)
    (receipt,) = send((outgoing("CT_small.dcm"),), to)
    return receipt.answer, receipt.detail


@pytest.mark.parametrize("bound", [None, "dns", "sha256"])
def test_a_result_arrives_with_mutual_tls(
    port: int, hospital: Authority, gateway: Certificate, archive: Certificate, bound: str | None
) -> None:
    names = {"dns": "dns:archive.hospital.test", "sha256": archive.fingerprint}
    certificates = () if bound is None else (names[bound],)
    tls = _tls(hospital, gateway, certificates=certificates)
    assert _sent(port, tls)[0] is Answer.STORED


def test_who_is_not_the_destination_gets_nothing_and_the_reason_is_told(
    port: int, hospital: Authority, gateway: Certificate, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path / "stranger")
    for tls, host, words in (
        (_tls(stranger, gateway), "127.0.0.1", "self-signed certificate"),
        (_tls(hospital, gateway), "localhost", "not valid for 'localhost'"),
        (_tls(hospital, gateway, certificates=("dns:other.test",)), "127.0.0.1", "another cert"),
        (_tls(hospital, None), "127.0.0.1", "or want one?"),
        (_tls(hospital, gateway, authorities=tmp_path / "none"), "127.0.0.1", "cannot be used"),
        (None, "127.0.0.1", "did not answer"),
    ):
        answer, detail = _sent(port, tls, host)
        assert (answer, words in detail) == (Answer.LATER, True), detail


def test_a_plain_destination_is_not_asked_without_tls(
    hospital: Authority, gateway: Certificate, tmp_path: Path
) -> None:
    with storescp(tmp_path / "received") as plain:
        answer, detail = _sent(plain, _tls(hospital, gateway))
    assert answer is Answer.LATER
    assert "no TLS with" in detail


def test_orthanc_answers_stores_and_is_asked_over_tls(
    hospital: Authority, gateway: Certificate, archive: Certificate, tmp_path: Path
) -> None:
    further = {
        "DicomTlsEnabled": True,
        "DicomTlsCertificate": str(archive.file),
        "DicomTlsPrivateKey": str(archive.key),
        "DicomTlsTrustedCertificates": str(hospital.file),
    }
    tls = _tls(hospital, gateway)
    with orthanc(tmp_path / "orthanc", gateway_port=free_port(), further=further) as pacs:
        to = DicomDestination(host="127.0.0.1", port=pacs.dicom_port, ae_title="ORTHANC", tls=tls)
        asked = {"host": to.host, "port": to.port, "called": "ORTHANC", "calling": "PACSAI"}
        assert echo(**asked, tls=tls).ok
        assert not echo(**asked).ok
        one = outgoing("CT_small.dcm")
        assert send((one,), to)[0].answer is Answer.STORED
        assert [held.StudyInstanceUID for held in find_study(one.StudyInstanceUID, to)] == [
            one.StudyInstanceUID
        ]
        assert find_study(generate_uid(), to) == ()
