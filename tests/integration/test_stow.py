"""STOW-RS against the web role as a process of its own: real clients, raw bodies, hostile bodies."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from struct import pack, unpack
from typing import Any

import psutil
import pytest
import requests
import yaml
from dicomweb_client import DICOMwebClient
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    generate_uid,
)
from sqlalchemy import text

from pacs_ai.ledger.tokens import Scope, Tokens
from pacs_ai.ledger.views import Views
from tests.integration.listening import image, listening, make_settings
from tests.integration.listening import store as c_store
from tests.peers import free_port
from tests.peers.orthanc import orthanc
from tests.running import Running, running_gateway
from tests.unfinished import unfinished

BOUNDARY = "between-the-parts"
MULTIPART = f'multipart/related; type="application/dicom"; boundary="{BOUNDARY}"'
FAILED, REFERENCED, OTHER = "00081198", "00081199", "0008119A"
MIB = 1024 * 1024


@dataclass(frozen=True)
class Web:
    """A web role that is up, and a token to store with."""

    running: Running
    token: str

    @property
    def port(self) -> int:
        return self.running.settings.web.port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/dicom-web"

    def post(
        self, body: bytes | Iterable[bytes], *, study: str = "", **headers: str
    ) -> requests.Response:
        url = f"{self.url}/studies/{study}" if study else f"{self.url}/studies"
        all_headers = {"Authorization": f"Bearer {self.token}", "Content-Type": MULTIPART}
        all_headers |= {name.replace("_", "-"): value for name, value in headers.items()}
        return requests.post(url, data=body, headers=all_headers, timeout=120)

    def row(self, data_set: Dataset) -> Any:
        """Return the ledger's row of an Instance, or None."""
        query = text("select * from instances where sop_instance_uid = :uid")
        with self.running.ledger.database.read() as connection:
            return connection.execute(query, {"uid": str(data_set.SOPInstanceUID)}).first()

    def temporary(self) -> list[Path]:
        return unfinished(self.running.settings.spool_path / "tmp")

    def log(self) -> str:
        folder = self.running.settings.data.parent / "log"
        return "".join(one.read_text() for one in folder.iterdir())


@contextmanager
def running_web(
    folder: Path, *, listener: dict[str, Any], failpoints: Sequence[str] = (), **web: Any
) -> Iterator[Web]:
    values = {
        "site": {"name": "test", "time_zone": "UTC", "use": "research", "responsible": "nobody"},
        "data": str(folder / "gateway"),
        "listener": {"port": free_port(), "minimum_free": 1, **listener},
        "web": {"port": free_port(), **web},
    }
    path = folder / "settings.yaml"
    path.write_text(yaml.safe_dump(values))
    with running_gateway(path, failpoints=failpoints, roles=("web",)) as running:
        tokens = Tokens(running.ledger.database)
        token, _ = tokens.create("pacs", scope=Scope.STOW, lifetime=None, actor="test")
        yield Web(running, token)


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    with running_web(tmp_path_factory.mktemp("web"), listener={}) as made:
        yield made


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """A web role with small limits."""
    folder = tmp_path_factory.mktemp("narrow")
    limits = {"maximum_request": "3MiB", "simultaneous_stores": 1}
    with running_web(folder, listener={"maximum_object": "1MiB"}, **limits) as made:
        yield made


def file_of(data_set: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = data_set.SOPClassUID
    meta.MediaStorageSOPInstanceUID = data_set.SOPInstanceUID
    meta.TransferSyntaxUID = syntax
    data_set.file_meta = meta
    buffer = BytesIO()
    dcmwrite(buffer, data_set, enforce_file_format=True)
    return buffer.getvalue()


def data_set_of(data: bytes) -> bytes:
    return data[144 + int.from_bytes(data[140:144], "little") :]


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data_set_of(data)).hexdigest()


def body_of(*files: bytes, header: str = "Content-Type: application/dicom\r\n") -> bytes:
    parts = [f"--{BOUNDARY}\r\n{header}\r\n".encode() + one + b"\r\n" for one in files]
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def uids(answer: requests.Response, sequence: str) -> list[str]:
    items = answer.json().get(sequence, {}).get("Value", [])
    return [one["00081155"]["Value"][0] for one in items]


def reasons(answer: requests.Response, sequence: str) -> list[int]:
    items = answer.json().get(sequence, {}).get("Value", [])
    return [one["00081197"]["Value"][0] for one in items]


def assert_no_part_is_left(web: Web) -> None:
    web.running.wait(lambda: web.temporary() == [], seconds=10)


# ---------------------------------------------------------------------- what is right


def test_a_public_client_stores_a_study(web: Web) -> None:
    study = generate_uid()
    sent = [dcmread(BytesIO(file_of(image(StudyInstanceUID=study)))) for _ in range(3)]
    client = DICOMwebClient(url=web.url, headers={"Authorization": f"Bearer {web.token}"})
    answer = client.store_instances(sent, study_instance_uid=study)
    stored = [one.ReferencedSOPInstanceUID for one in answer.ReferencedSOPSequence]
    assert stored == [one.SOPInstanceUID for one in sent]
    assert "FailedSOPSequence" not in answer
    assert {web.row(one).peer for one in sent} == {"pacs"}
    timeline = Views(web.running.ledger.database).timeline(str(study))
    assert [(one["kind"], one["actor"]) for one in timeline["events"]] == [
        ("stored by STOW-RS", "pacs")
    ]
    assert [one["kind"] for one in timeline["work"]] == ["assemble"]


def test_the_same_bytes_as_by_c_store(web: Web, tmp_path: Path) -> None:
    made = image()
    data = file_of(made)
    assert web.post(body_of(data)).status_code == 200
    settings = make_settings(tmp_path)
    with listening(settings) as listener:
        c_store(settings.listener.port, made)
        (received,) = listener.instances()
    assert web.row(made).digest == received["digest"] == digest_of(data)
    (kept,) = (web.running.settings.spool_path / "instances").rglob(f"{digest_of(data)}*")
    (other,) = (settings.spool_path / "instances").rglob(f"{digest_of(data)}*")
    assert kept.read_bytes() == other.read_bytes()
    assert data_set_of(kept.read_bytes()) == data_set_of(data)


def test_orthanc_sends_a_study_by_stow_rs(web: Web, tmp_path: Path) -> None:
    study = generate_uid()
    sent = [image(StudyInstanceUID=study) for _ in range(3)]
    headers = {"Authorization": f"Bearer {web.token}"}
    with orthanc(tmp_path, gateway_web={"Url": f"{web.url}/", "HttpHeaders": headers}) as pacs:
        ids = []
        for one in sent:
            put = requests.post(f"{pacs.url}/instances", data=file_of(one), timeout=20)
            put.raise_for_status()
            ids.append(put.json()["ID"])
        answer = requests.post(
            f"{pacs.dicomweb.base_url}/servers/gateway/stow", json={"Resources": ids}, timeout=60
        )
        assert answer.status_code == 200, answer.text
    assert [web.row(one).digest for one in sent] == [digest_of(file_of(one)) for one in sent]


@pytest.mark.parametrize(
    "syntax",
    [ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian],
    ids=lambda one: one.name,
)
def test_every_byte_of_a_data_set_is_kept(web: Web, syntax: Any) -> None:
    made = image()
    made.add_new(0x7FE00010, "OW", b"\r\n--" + BOUNDARY.encode()[:-1] + b"\r\n\r\n--\r\n")
    data = file_of(made, syntax)
    assert web.post(body_of(data)).status_code == 200
    assert web.row(made).digest == digest_of(data)


def test_the_same_again_is_stored_and_multiplies_nothing(web: Web) -> None:
    made = image()
    body = body_of(file_of(made))
    assert [web.post(body).status_code for _ in range(2)] == [200, 200]
    query = text("select count(*) from instances where sop_instance_uid = :uid")
    with web.running.ledger.database.read() as connection:
        assert connection.scalar(query, {"uid": made.SOPInstanceUID}) == 1


@pytest.mark.parametrize(
    ("content_type", "header"),
    [
        (MULTIPART, "Content-Type: application/dicom; transfer-syntax=*\r\n"),
        (MULTIPART, "content-type:application/dicom\r\nContent-Length: 5\r\n"),
        (MULTIPART, ""),
        (f"multipart/related; boundary={BOUNDARY}", "Content-Type: application/dicom\r\n"),
        (
            f"Multipart/Related; type=application/dicom; boundary={BOUNDARY}; start=<1>",
            "Content-Location: /x\r\nContent-Type: Application/DICOM\r\n",
        ),
    ],
)
def test_headers_are_read_as_clients_write_them(web: Web, content_type: str, header: str) -> None:
    made = image()
    answer = web.post(body_of(file_of(made), header=header), Content_Type=content_type)
    assert answer.status_code == 200, answer.text
    assert uids(answer, REFERENCED) == [made.SOPInstanceUID]


def test_many_small_parts(web: Web) -> None:
    study, series = generate_uid(), generate_uid()
    sent = [image(StudyInstanceUID=study, SeriesInstanceUID=series) for _ in range(200)]
    answer = web.post(body_of(*(file_of(one) for one in sent)))
    assert answer.status_code == 200
    assert uids(answer, REFERENCED) == [one.SOPInstanceUID for one in sent]


def test_a_body_that_comes_in_any_pieces(web: Web) -> None:
    made = [image(), image()]
    body = body_of(*(file_of(one) for one in made))

    def one_by_one() -> Iterator[bytes]:
        for at in range(0, len(body), 7):
            yield body[at : at + 7]

    assert web.post(one_by_one()).status_code == 200
    assert all(web.row(one) is not None for one in made)


def test_a_large_instance_is_never_whole_in_memory(web: Web) -> None:
    _send_large(web, 200)


@pytest.mark.soak
def test_an_instance_of_a_gigabyte_is_never_whole_in_memory(web: Web) -> None:
    _send_large(web, 1024)


def _send_large(web: Web, mebibytes: int) -> None:
    process = psutil.Process(web.running.supervisor.pid("web"))
    web.post(body_of(file_of(image())))
    before, highest, over = process.memory_info().rss, 0, threading.Event()

    def watch() -> None:
        nonlocal highest
        while not over.wait(0.02):
            highest = max(highest, process.memory_info().rss)

    made = image()
    head = file_of(made)
    pixels = b"\xe0\x7f\x10\x00OW\x00\x00" + (mebibytes * MIB).to_bytes(4, "little")

    def pieces() -> Iterator[bytes]:
        whole = body_of(head + pixels)
        end = whole.index(pixels) + len(pixels)
        yield whole[:end]
        for number in range(mebibytes):
            yield bytes([number % 256]) * MIB
        yield whole[end:]

    watcher = threading.Thread(target=watch)
    watcher.start()
    answer = web.post(pieces())
    over.set()
    watcher.join()
    assert answer.status_code == 200
    assert web.row(made).size > mebibytes * MIB
    assert highest - before < 40 * MIB


# ---------------------------------------------------------------------- what is partly right


def test_one_bad_part_fails_alone(web: Web) -> None:
    good, other = image(), image()
    lying = image()
    data = file_of(lying)
    lying.SOPInstanceUID = generate_uid()
    answer = web.post(
        body_of(file_of(good), data[:200] + data_set_of(file_of(lying)), file_of(other))
    )
    assert answer.status_code == 202
    assert uids(answer, REFERENCED) == [good.SOPInstanceUID, other.SOPInstanceUID]
    assert len(reasons(answer, FAILED) + reasons(answer, OTHER)) == 1
    assert_no_part_is_left(web)


def test_an_instance_of_another_study_fails(web: Web) -> None:
    right, wrong = image(), image()
    answer = web.post(body_of(file_of(right), file_of(wrong)), study=str(right.StudyInstanceUID))
    assert answer.status_code == 202
    assert uids(answer, REFERENCED) == [right.SOPInstanceUID]
    assert uids(answer, FAILED) == [wrong.SOPInstanceUID]
    assert reasons(answer, FAILED) == [0xA900]
    assert web.row(wrong) is None


@pytest.mark.parametrize(
    ("elements", "syntax", "reason"),
    [
        ({"SOPClassUID": "1.2.840.10008.1.3.10"}, ExplicitVRLittleEndian, 0x0122),
        ({"SOPClassUID": "1.2.3.4"}, ExplicitVRLittleEndian, 0x0122),
        ({}, "1.2.3.4", 0xC122),
        ({"StudyInstanceUID": ""}, ExplicitVRLittleEndian, 0xC000),
    ],
)
def test_what_is_not_taken_says_why(
    web: Web, elements: dict[str, str], syntax: str, reason: int
) -> None:
    made = image(**elements)
    data = file_of(made)
    if syntax != ExplicitVRLittleEndian:
        data = data.replace(
            ExplicitVRLittleEndian.encode() + b"\0", syntax.encode().ljust(20, b"\0")
        )
    answer = web.post(body_of(data))
    assert answer.status_code == 409
    assert uids(answer, FAILED) == [made.SOPInstanceUID]
    assert reasons(answer, FAILED) == [reason]
    assert REFERENCED not in answer.json()
    assert web.row(made) is None


def _hostile() -> Iterator[tuple[str, bytes]]:
    data = file_of(image())
    yield "empty", b""
    yield "shorter than a preamble", data[:100]
    yield "cut in the File Meta Information", data[:200]
    yield "no DICM", data[:128] + b"MCID" + data[132:]
    yield "no preamble", data[128:]
    yield "a program as well", b"MZ" + data[2:]
    yield "group length of 4 GiB", data[:140] + b"\xff" * 4 + data[144:]
    yield "group length of 60 KiB", data[:140] + (60 * 1024).to_bytes(4, "little") + data[144:]
    (length,) = unpack("<I", data[140:144])
    (first,) = unpack("<H", data[144 + length + 6 : 144 + length + 8])
    for name, wrong in (("one element more", 8 + first), ("one byte more", 1), ("less", -2)):
        yield f"group length of {name}", data[:140] + pack("<I", length + wrong) + data[144:]
    meta = dcmread(BytesIO(data)).file_meta
    last = 8 + len(meta[max(meta.keys())].value) + len(meta[max(meta.keys())].value) % 2
    yield "group length of one element less", data[:140] + pack("<I", length - last) + data[144:]
    yield "garbage as File Meta Information", data[:144] + b"\xff" * (len(data) - 144)
    yield "no group length", data[:132] + data[144:]
    path = b"../../../../etc/passwd\0\0"
    uid = data[data.index(b"\x02\x00\x03\x00UI") + 8 :][: len(path)]
    yield "a path for a UID", data.replace(uid, path)


HOSTILE = dict(_hostile())


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_part_is_refused_and_the_next_is_stored(web: Web, name: str) -> None:
    good = image()
    answer = web.post(body_of(HOSTILE[name], file_of(good)))
    assert answer.status_code == 202, answer.text
    assert uids(answer, REFERENCED) == [good.SOPInstanceUID]
    assert reasons(answer, OTHER) == [0xC000]
    alone = web.post(body_of(HOSTILE[name]))
    assert alone.status_code == 409
    assert reasons(alone, OTHER) == [0xC000]
    assert_no_part_is_left(web)


def test_a_path_for_a_uid_in_the_data_set_is_refused(web: Web) -> None:
    made = image()
    data = file_of(made)
    study = str(made.StudyInstanceUID).encode()
    path = b"../" * (len(study) // 3) + b"." * (len(study) % 3)
    answer = web.post(body_of(data.replace(study, path)))
    assert answer.status_code == 409
    assert reasons(answer, FAILED) == [0xC000]
    assert "../" not in answer.text


def test_neither_answers_nor_the_log_name_the_patient_or_the_token(web: Web) -> None:
    marks = {
        "PatientName": "Canary^Yellow",
        "PatientID": "CANARY-17",
        "AccessionNumber": "CANARY-ACC",
    }
    good, study_less = image(**marks), image(**marks, StudyInstanceUID="")
    answer = web.post(body_of(file_of(good), file_of(study_less), b"Canary^Yellow" * 20))
    assert answer.status_code == 202
    secret = web.token.split("_", 2)[2]  # its alphabet has the separator too
    for text_of in (answer.text, str(answer.headers), web.log()):
        assert "canary" not in text_of.lower()
        assert secret not in text_of
    assert "instance refused" in web.log()


def test_a_part_of_another_media_type_fails(web: Web) -> None:
    answer = web.post(body_of(b"{}", header="Content-Type: application/dicom+json\r\n"))
    assert answer.status_code == 409
    assert reasons(answer, OTHER) == [0xC000]


# ---------------------------------------------------------------------- what is wrong


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/dicom", 415),
        ("multipart/form-data; boundary=x", 415),
        (f'multipart/related; type="application/dicom+json"; boundary={BOUNDARY}', 415),
        ("multipart/related; type=application/dicom", 400),
        ("multipart/related; type=application/dicom; boundary=" + "x" * 300, 400),
        ("multipart/related; type=application/dicom; boundary=other", 400),
    ],
)
def test_a_wrong_media_type_or_boundary_stores_nothing(
    web: Web, content_type: str, status: int
) -> None:
    made = image()
    answer = web.post(body_of(file_of(made)), Content_Type=content_type)
    assert answer.status_code == status
    assert answer.json()["error"]
    assert web.row(made) is None


def test_a_compressed_body_is_refused(web: Web) -> None:
    made = image()
    answer = web.post(body_of(file_of(made)), Content_Encoding="gzip")
    assert answer.status_code == 415
    assert "Content-Encoding" in answer.json()["error"]
    assert web.row(made) is None


@pytest.mark.parametrize("body", [b"", b"\r\n", f"--{BOUNDARY}--\r\n".encode(), b"garbage" * 999])
def test_a_body_without_parts_is_400(web: Web, body: bytes) -> None:
    assert web.post(body).status_code == 400


def test_only_json_is_answered_and_nothing_is_stored_before_that_is_said(web: Web) -> None:
    made = image()
    answer = web.post(body_of(file_of(made)), Accept="application/dicom+xml")
    assert answer.status_code == 406
    assert web.row(made) is None


def test_a_study_that_is_no_uid_is_400(web: Web) -> None:
    assert web.post(body_of(file_of(image())), study="..%2f..%2fetc").status_code in (400, 404)
    assert web.post(body_of(file_of(image())), study="1.2.3.x").status_code == 400


def test_a_body_without_its_last_boundary_keeps_what_was_whole(web: Web) -> None:
    whole, cut = image(), image()
    body = body_of(file_of(whole), file_of(cut))
    answer = web.post(body[: -len(BOUNDARY) - 8])
    assert answer.status_code == 202
    assert uids(answer, REFERENCED) == [whole.SOPInstanceUID]
    assert uids(answer, FAILED) == [cut.SOPInstanceUID]
    assert web.row(cut) is None
    alone = image()
    assert web.post(body_of(file_of(alone))[:-40]).status_code == 400
    assert web.row(alone) is None
    assert_no_part_is_left(web)


def test_the_answer_does_not_wait_for_what_follows_the_last_boundary(web: Web) -> None:
    made = image()
    body = body_of(file_of(made))
    head = (
        f"POST /dicom-web/studies HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {web.token}"
        f"\r\nContent-Type: {MULTIPART}\r\nContent-Length: {len(body) + 10_000}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", web.port), timeout=10) as raw:
        raw.sendall(head.encode() + body)
        assert raw.recv(4096).startswith(b"HTTP/1.1 200 ")
    assert web.row(made) is not None


def test_a_sender_that_goes_away_leaves_nothing_behind(web: Web) -> None:
    whole, cut = image(), image()
    body = body_of(file_of(whole), file_of(cut) + bytes(2 * MIB))
    head = (
        f"POST /dicom-web/studies HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {web.token}"
        f"\r\nContent-Type: {MULTIPART}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", web.port)) as raw:
        raw.sendall(head.encode() + body[: len(body) - MIB])
        web.running.wait(lambda: web.temporary() != [], seconds=10)
    assert_no_part_is_left(web)
    assert web.row(whole) is not None
    assert web.row(cut) is None
    assert "Traceback" not in web.log()


@pytest.mark.parametrize(
    "header",
    ["X: " + "x" * MIB + "\r\n", "x" * MIB + ": 1\r\n", "X: 1\r\n" * 50_000],
    ids=["value", "name", "number"],
)
def test_a_bomb_in_the_header_of_a_part_is_400(web: Web, header: str) -> None:
    assert web.post(body_of(b"", header=header)).status_code == 400


def test_a_bomb_in_the_header_of_the_request_is_refused(web: Web) -> None:
    with socket.create_connection(("127.0.0.1", web.port), timeout=10) as raw:
        raw.sendall(b"POST /dicom-web/studies HTTP/1.1\r\nHost: 127.0.0.1\r\n")
        with _tolerated():
            for _ in range(64):
                raw.sendall(b"X-Bomb: " + b"x" * 16 * 1024 + b"\r\n")
            assert b" 400 " in raw.recv(4096).splitlines()[0]
    assert web.post(body_of(file_of(image()))).status_code == 200


@contextmanager
def _tolerated() -> Iterator[None]:
    try:
        yield
    except ConnectionError:
        return


# ---------------------------------------------------------------------- limits


def test_an_instance_over_the_limit_is_413_and_its_neighbours_are_stored(narrow: Web) -> None:
    good, large = image(), image()
    data = file_of(large) + bytes(MIB + 1)
    answer = narrow.post(body_of(data))
    assert answer.status_code == 413
    assert uids(answer, FAILED) == [large.SOPInstanceUID]
    answer = narrow.post(body_of(data, file_of(good)))
    assert answer.status_code == 202
    assert uids(answer, REFERENCED) == [good.SOPInstanceUID]
    assert_no_part_is_left(narrow)


def test_a_request_over_the_limit_is_413(narrow: Web) -> None:
    large = body_of(*(file_of(image()) + bytes(MIB - 4096) for _ in range(4)))
    assert len(large) > 3 * MIB

    def pieces() -> Iterator[bytes]:  # no Content-Length: the limit is met on the way
        for at in range(0, len(large), 100_000):
            yield large[at : at + 100_000]

    with _tolerated_by_requests():
        assert narrow.post(large).status_code == 413
    with _tolerated_by_requests():
        assert narrow.post(pieces()).status_code == 413
    assert_no_part_is_left(narrow)


@contextmanager
def _tolerated_by_requests() -> Iterator[None]:
    # The answer comes before the body is read; a client that still writes may see the connection end.
    try:
        yield
    except requests.ConnectionError:
        return


def test_one_request_too_many_is_told_to_come_again(narrow: Web) -> None:
    made = image()
    body = body_of(file_of(image()))
    head = (
        f"POST /dicom-web/studies HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {narrow.token}"
        f"\r\nContent-Type: {MULTIPART}\r\nContent-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", narrow.port), timeout=10) as raw:
        raw.sendall(head.encode())
        assert raw.recv(4096).startswith(b"HTTP/1.1 100 ")  # it is under way
        raw.sendall(body[:100])
        answer = narrow.post(body_of(file_of(made)))
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) > 0
    narrow.running.wait(lambda: narrow.post(body_of(file_of(made))).status_code == 200, seconds=10)
