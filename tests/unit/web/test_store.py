"""STOW-RS over a real gateway in this process: who may, and what the answers say when something is wrong."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from starlette.applications import Starlette
from starlette.testclient import TestClient

from pacs_ai import intake
from pacs_ai.errors import TransientError
from pacs_ai.gateway import Gateway
from pacs_ai.ledger import Ledger
from pacs_ai.ledger.engine import Database, LedgerBusyError
from pacs_ai.ledger.tokens import Scope, Tokens
from pacs_ai.ledger.views import Views
from pacs_ai.settings import Reading
from pacs_ai.spool import Disk, Spool, SpoolFullError
from pacs_ai.web import store as stow
from pacs_ai.web import storing
from pacs_ai.web.app import create_app
from pacs_ai.web.guard import Guard
from pacs_ai.web.store import Store
from tests.integration.listening import image, make_settings
from tests.integration.test_stow import BOUNDARY, MULTIPART, body_of, digest_of, file_of
from tests.unfinished import unfinished, without_nameless_files

STUDIES = "/dicom-web/studies"
READ = {
    "/dicom-web/workitems": Scope.WORKLIST,
    "/dicom-web/workitems/1.2.3": Scope.WORKLIST,
    "/status": Scope.STATUS,
    "/health": Scope.STATUS,
}


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    made = Gateway(make_settings(tmp_path))
    yield made
    made.close()


@pytest.fixture
def tokens(gateway: Gateway) -> Tokens:
    return Tokens(gateway.ledger.database)


def client(gateway: Gateway, reading: Reading = Reading.OPEN) -> TestClient:
    return TestClient(app(gateway, reading), base_url="http://127.0.0.1")


def app(gateway: Gateway, reading: Reading) -> Starlette:
    tokens = Tokens(gateway.ledger.database)
    guard = Guard(tokens, reading)
    return create_app(Views(gateway.ledger.database), guard, Store(gateway, guard, tokens))


def make(tokens: Tokens, scope: Scope = Scope.STOW, name: str = "pacs") -> str:
    return tokens.create(name, scope=scope, lifetime=timedelta(days=1), actor="test")[0]


def send(asked: TestClient, token: str | None, body: bytes | None = None) -> Any:
    headers = {"Content-Type": MULTIPART.encode()}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}".encode()
    return asked.post(
        STUDIES, content=body_of(file_of(image())) if body is None else body, headers=headers
    )


def held(gateway: Gateway) -> int:
    return len(Views(gateway.ledger.database).instances(None))


# ---------------------------------------------------------------------- who may


@pytest.mark.parametrize("reading", Reading)
def test_storing_always_needs_a_token(gateway: Gateway, reading: Reading) -> None:
    answer = send(client(gateway, reading), None)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer ")
    assert held(gateway) == 0


@pytest.mark.parametrize("scope", [Scope.WORKLIST, Scope.STATUS])
def test_a_token_for_something_else_stores_nothing(
    gateway: Gateway, tokens: Tokens, scope: Scope
) -> None:
    answer = send(client(gateway), make(tokens, scope))
    assert answer.status_code == 403
    assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]
    assert held(gateway) == 0


def test_no_token_that_is_not_valid_stores_and_none_is_told_from_another(
    gateway: Gateway, tokens: Tokens
) -> None:
    good, made = tokens.create("pacs", scope=Scope.STOW, lifetime=None, actor="test")
    expired, _ = tokens.create("old", scope=Scope.STOW, lifetime=timedelta(0), actor="test")
    revoked = make(tokens)
    tokens.revoke(tokens.listed()[-1].id, actor="test")
    wrong = [
        expired,
        revoked,
        f"{good[:-1]}{'A' if good[-1] != 'A' else 'B'}",
        good.replace(made.id, "0" * 16),
        good[:-1],
        "",
        "x",
        "pacsai_" + "é" * 16,
    ]
    answers = [send(client(gateway), one) for one in wrong]
    assert {one.status_code for one in answers} == {401}
    assert len({(one.text, one.headers["www-authenticate"]) for one in answers}) == 1
    assert held(gateway) == 0
    assert send(client(gateway), good).status_code == 200


def test_reading_on_loopback_stays_open_and_can_be_closed(gateway: Gateway, tokens: Tokens) -> None:
    opened, closed = client(gateway), client(gateway, Reading.TOKEN)
    for path, scope in READ.items():
        assert opened.get(path).status_code in (200, 204, 404)
        assert closed.get(path).status_code == 401
        for other in Scope:
            token = {"Authorization": f"Bearer {make(tokens, other)}"}
            expected = (200, 204, 404) if other is scope else (403,)
            assert closed.get(path, headers=token).status_code in expected


def test_every_resource_needs_a_token_when_reading_does(gateway: Gateway) -> None:
    closed = client(gateway, Reading.TOKEN)
    routes: Any = app(gateway, Reading.TOKEN).routes
    for route in routes:
        for method in route.methods:
            path = route.path.replace("{uid}", "1.2.3")
            assert closed.request(method, path).status_code == 401


def test_the_ledger_knows_tokens_by_digest_only(gateway: Gateway, tokens: Tokens) -> None:
    token = make(tokens)
    send(client(gateway), token)
    secret = token[-20:].encode()  # a secret may hold an underscore itself
    files = [one for one in gateway.settings.data.rglob("*") if one.is_file()]
    assert files
    assert not any(secret in one.read_bytes() for one in files)
    with gateway.ledger.database.read() as connection:
        events = connection.execute(text("select kind, actor from events order by id")).all()
    assert [*map(tuple, events)] == [("token created", "test"), ("stored by STOW-RS", "pacs")]


# ---------------------------------------------------------------------- when something is wrong


def test_a_full_disk_is_503_and_says_when_to_come_again(
    gateway: Gateway, tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Spool, "disk", lambda self: Disk(total=10**12, free=0))
    answer = send(client(gateway), make(tokens))
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0


def test_too_much_waiting_work_is_503_and_says_when_to_come_again(
    gateway: Gateway, tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = gateway.settings.listener.maximum_backlog
    monkeypatch.setattr(Ledger, "backlog", lambda self: most + 1)
    answer = send(client(gateway), make(tokens))
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert held(gateway) == 0
    monkeypatch.setattr(Ledger, "backlog", lambda self: most)
    assert send(client(gateway), make(tokens)).status_code == 200


@pytest.mark.parametrize("reading", Reading)
@pytest.mark.parametrize("path", [*READ, STUDIES])
def test_a_ledger_that_does_not_answer_is_503_and_says_when_to_come_again(
    gateway: Gateway, tokens: Tokens, monkeypatch: pytest.MonkeyPatch, reading: Reading, path: str
) -> None:
    token = make(tokens, READ.get(path, Scope.STOW))

    def gone(self: Any) -> Any:
        raise LedgerBusyError("the ledger's database is at /var/lib/ledger")

    monkeypatch.setattr(Database, "read", gone)
    asked = client(gateway, reading)
    if path == STUDIES:
        answer = send(asked, token)
    else:
        answer = asked.get(path, headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 503
    assert answer.headers["cache-control"] == "no-store"
    if (path, reading) != ("/health", Reading.OPEN):  # that one says what is wrong
        assert int(answer.headers["retry-after"]) > 0
        assert "/var/lib" not in answer.text


def _reasons(answer: Any) -> list[int]:
    return [one["00081197"]["Value"][0] for one in answer.json()["00081198"]["Value"]]


def test_a_disk_that_fills_on_the_way_is_503(
    gateway: Gateway, tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = iter([10**9, 0, 0])
    monkeypatch.setattr(Spool, "disk", lambda self: Disk(total=10**12, free=next(free)))
    answer = send(client(gateway), make(tokens), body_of(file_of(image()), file_of(image())))
    assert answer.status_code == 503
    assert "retry-after" in answer.headers
    assert _reasons(answer) == [0xA700, 0xA700]


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (SpoolFullError("the disk"), 503, 0xA700),
        (TransientError("the ledger"), 503, 0xA700),
        (RuntimeError("Doe^Jane"), 409, 0x0110),
    ],
)
def test_what_goes_wrong_in_one_instance_is_told_and_the_next_is_stored(
    gateway: Gateway,
    tokens: Tokens,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    status: int,
    reason: int,
) -> None:
    good = image()
    real = intake.Incoming._commit
    times = iter([error, error, None])

    def failing(self: Any) -> Any:
        raised = next(times)
        if raised is not None:
            raise raised
        return real(self)

    monkeypatch.setattr(intake.Incoming, "_commit", failing)
    token = make(tokens)
    answer = send(client(gateway), token)
    assert answer.status_code == status
    assert _reasons(answer) == [reason]
    assert "Doe" not in answer.text
    answer = send(client(gateway), token, body_of(file_of(image()), file_of(good)))
    assert answer.status_code == 202
    assert held(gateway) == 1
    assert unfinished(gateway.spool.temporary) == []


def test_an_instance_whose_bytes_were_swept_away_is_not_called_stored(
    gateway: Gateway, tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A temporary file that has a name is swept when it is an hour old, whoever writes it.
    without_nameless_files(monkeypatch)
    real = intake.Incoming.commit

    def swept(self: Any) -> Any:
        for file in gateway.spool.temporary.iterdir():
            file.unlink()
        return real(self)

    monkeypatch.setattr(intake.Incoming, "commit", swept)
    answer = send(client(gateway), make(tokens))
    assert answer.status_code == 503
    assert _reasons(answer) == [0xA700]
    assert held(gateway) == 0


def test_a_sender_that_is_silent_is_cut_off(
    gateway: Gateway, tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stow, "IDLE_SECONDS", 0.1)

    async def silent(self: Any) -> Any:
        yield body_of(file_of(image()))[:500]
        await asyncio.sleep(20)

    monkeypatch.setattr(stow.Request, "stream", silent)
    answer = send(client(gateway), make(tokens))
    assert answer.status_code == 408
    assert held(gateway) == 0
    assert unfinished(gateway.spool.temporary) == []


async def _dripping(body: bytes, size: int, seconds: float) -> AsyncIterator[bytes]:
    for at in range(0, len(body), size):
        yield body[at : at + size]
        await asyncio.sleep(seconds)


def test_a_sender_that_drips_is_cut_off(
    gateway: Gateway, tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stow, "PACE_SECONDS", 0.2)
    body = body_of(file_of(image()) + bytes(2000))
    monkeypatch.setattr(stow.Request, "stream", lambda self: _dripping(body, 1, 0.01))
    began = time.monotonic()
    answer = send(client(gateway), make(tokens))
    assert answer.status_code == 408
    assert "65536 bytes" in answer.text
    assert time.monotonic() - began < 5
    assert held(gateway) == 0
    assert unfinished(gateway.spool.temporary) == []


def test_a_sender_that_is_slow_at_first_or_throughout_is_not_cut_off(
    gateway: Gateway, tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stow, "PACE_SECONDS", 0.2)
    monkeypatch.setattr(stow, "PACE_BYTES", 2000)
    body = body_of(file_of(image()) + bytes(8000))

    async def slow(self: Any) -> Any:
        async for chunk in _dripping(body[:15], 1, 0.01):
            yield chunk
        async for chunk in _dripping(body[15:], 1000, 0.07):
            yield chunk

    monkeypatch.setattr(stow.Request, "stream", slow)
    assert send(client(gateway), make(tokens)).status_code == 200


def test_a_gateway_that_is_slow_itself_cuts_off_nobody(
    gateway: Gateway, tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stow, "PACE_SECONDS", 0.1)
    monkeypatch.setattr(stow, "_PIECE", 1)
    real = stow.Multipart.feed

    def slow(self: Any, data: bytes) -> None:
        time.sleep(0.15)
        real(self, data)

    monkeypatch.setattr(stow.Multipart, "feed", slow)
    body = body_of(file_of(image()))
    monkeypatch.setattr(stow.Request, "stream", lambda self: _dripping(body, 300, 0))
    assert send(client(gateway), make(tokens)).status_code == 200


@pytest.mark.parametrize("cut", [*range(1, 8), 20, 24, 400])
@pytest.mark.parametrize("piece", [1, 512 * 1024])
def test_the_answer_comes_with_the_last_boundary(
    gateway: Gateway, tokens: Tokens, monkeypatch: pytest.MonkeyPatch, cut: int, piece: int
) -> None:
    monkeypatch.setattr(stow, "IDLE_SECONDS", 5.0)
    monkeypatch.setattr(stow, "_PIECE", piece)
    body = body_of(file_of(image())).removesuffix(b"\r\n")

    async def goes_on(self: Any) -> Any:
        yield body[:-cut]
        yield body[-cut:]
        await asyncio.sleep(20)

    monkeypatch.setattr(stow.Request, "stream", goes_on)
    began = time.monotonic()
    assert send(client(gateway), make(tokens)).status_code == 200
    assert time.monotonic() - began < 4
    assert held(gateway) == 1


def test_what_only_looks_like_the_last_boundary_ends_nothing(
    gateway: Gateway, tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = image()
    data = file_of(made) + f"--{BOUNDARY}-- and on".encode()
    body = body_of(data)
    monkeypatch.setattr(stow.Request, "stream", lambda self: _dripping(body, 7, 0))
    assert send(client(gateway), make(tokens)).status_code == 200
    with gateway.ledger.database.read() as connection:
        (digest,) = connection.execute(text("select digest from instances")).scalars()
    assert digest == digest_of(data)


def test_too_many_instances_are_413_and_those_before_are_named(
    gateway: Gateway, tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storing, "MAXIMUM_PARTS", 2)
    answer = send(client(gateway), make(tokens), body_of(*(file_of(image()) for _ in range(3))))
    assert answer.status_code == 413
    assert len(answer.json()["00081199"]["Value"]) == 2
    assert held(gateway) == 2


def test_every_class_and_encoding_of_the_listener_is_taken() -> None:
    from types import SimpleNamespace
    from typing import cast

    from listener import ae
    from pacs_ai.settings import Listener
    from pacs_ai.web.file_meta import FileMeta

    entity = ae.build(cast("Any", SimpleNamespace(settings=SimpleNamespace(listener=Listener()))))
    classes = {str(one.abstract_syntax) for one in entity.supported_contexts} - {ae.VERIFICATION}
    for sop_class, syntax in [
        *((one, ae.TRANSFER_SYNTAXES[0]) for one in classes),
        *((next(iter(classes)), one) for one in ae.TRANSFER_SYNTAXES),
    ]:
        made = image(SOPClassUID=sop_class)
        data = _meta_of(made, syntax)
        found = FileMeta(None).feed(memoryview(data + b"the rest"))
        assert found is not None
        context, rest = found
        assert (context.SOPClassUID, context.transfer_syntax_uid) == (sop_class, syntax)
        assert rest == b"the rest"


def _meta_of(data_set: Any, syntax: str) -> bytes:
    from pydicom.dataset import FileMetaDataset
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_file_meta_info

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = data_set.SOPClassUID
    meta.MediaStorageSOPInstanceUID = data_set.SOPInstanceUID
    meta.TransferSyntaxUID = syntax
    buffer = DicomBytesIO()
    write_file_meta_info(buffer, meta, enforce_standard=True)
    return b"\0" * 128 + b"DICM" + buffer.getvalue()


def _mutated(chance: random.Random, body: bytes) -> bytes:
    made = bytearray(body)
    for _ in range(chance.randint(1, 4)):
        at, size = chance.randrange(len(made)), chance.randint(1, 40)
        match chance.randrange(4):
            case 0:
                made[at] = chance.randrange(256)
            case 1:
                del made[at : at + size]
            case 2:
                made[at:at] = chance.randbytes(size)
            case _:
                made[at:at] = made[max(0, at - 200) : at]
    return bytes(made)


@pytest.mark.parametrize("seed", range(3))
def test_no_body_breaks_the_gateway_or_its_word(
    gateway: Gateway, tokens: Tokens, seed: int
) -> None:
    chance = random.Random(seed)
    asked, token = client(gateway), make(tokens)
    seen = set()
    for _ in range(100):
        body = body_of(*(file_of(image()) for _ in range(2)))
        answer = send(asked, token, _mutated(chance, body))
        seen.add(answer.status_code)
        items = answer.json().get("00081199", {}).get("Value", [])
        for one in items:
            uid = one["00081155"]["Value"][0]
            query = text(
                "select digest, transfer_syntax_uid from instances where sop_instance_uid = :u"
            )
            with gateway.ledger.database.read() as connection:
                rows = connection.execute(query, {"u": uid}).all()
            assert rows, "called stored, and is not"
            for row in rows:
                path = gateway.spool.instance_path(*row)
                assert digest_of(path.read_bytes()) == row.digest
        assert bool(items) == (answer.status_code in (200, 202))
    assert seen <= {200, 202, 400, 409}
    assert {200, 400} < seen, "the mutations reach too little"
    assert unfinished(gateway.spool.temporary) == []
