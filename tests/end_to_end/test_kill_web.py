"""The web role dies at every place of the receive path; a sender that repeats loses nothing."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import requests

from pacs_ai.failpoint import PLACES
from tests.integration.listening import image
from tests.integration.test_stow import body_of, digest_of, file_of, running_web

RECEIVE = [place for place in PLACES if place.startswith("receive.")]


@pytest.mark.parametrize("place", RECEIVE)
def test_a_death_while_storing_loses_nothing(place: str, tmp_path: Path) -> None:
    sent = [image() for _ in range(3)]
    files = [file_of(one) for one in sent]
    with running_web(tmp_path, listener={}, failpoints=[place]) as web:
        first = web.running.supervisor.pid("web")
        deadline = time.monotonic() + 60
        while True:
            web.running.supervisor.look()
            try:
                answer = web.post(body_of(*files))
            except requests.ConnectionError:  # as when a peer's machine goes down
                assert time.monotonic() < deadline, "it does not come back"
                time.sleep(0.2)
            else:
                break
        assert answer.status_code == 200
        assert web.running.supervisor.pid("web") != first, "nothing died"
        assert web.temporary() == []
        for data_set, data in zip(sent, files, strict=True):
            row = web.row(data_set)
            assert row.digest == digest_of(data)
            name = f"{row.digest}.{row.transfer_syntax_uid}.dcm"
            kept = web.running.settings.spool_path / "instances" / row.digest[:2] / name
            assert digest_of(kept.read_bytes()) == row.digest
