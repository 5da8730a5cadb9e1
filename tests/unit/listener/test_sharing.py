"""A process of several has its part of every limit, and says that it lives only while it does."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from listener import sharing, transport
from listener.ae import start
from listener.sharing import Share, beat_to_parent
from pacs_ai.errors import ConfigError
from pacs_ai.gateway import Gateway
from pacs_ai.intake import Context
from pacs_ai.spool import Writer
from tests.integration.listening import CT, encoded, image, make_settings

SYNTAX = "1.2.840.10008.1.2.1"


@pytest.mark.parametrize("limit", [3, 16, 32, 64])
def test_the_parts_of_a_limit_sum_to_it(limit: int) -> None:
    parts = [Share(number, 3).of(limit) for number in range(3)]
    assert sum(parts) == limit
    assert max(parts) - min(parts) <= 1


def test_a_server_has_its_part_of_every_limit(tmp_path: Path) -> None:
    limits = {"maximum_associations": 9, "maximum_connections": 21}
    gateway = Gateway(make_settings(tmp_path, processes=2, **limits))
    servers = [start(gateway, Share(number, 2)) for number in range(2)]
    try:
        made = [one.limits for one in servers if isinstance(one, transport.Server)]
        assert [one.associations for one in made] == [5, 4]
        assert [one.connections for one in made] == [11, 10]
    finally:
        for one in servers:
            one.shutdown()
        gateway.close()


@pytest.mark.parametrize(("limit", "held"), [(4, [4, 4]), (5, [5, 4]), (8, [5, 4])])
def test_the_limit_of_an_address_is_whole_in_each_process_that_has_so_many_seats(
    tmp_path: Path, limit: int, held: list[int]
) -> None:
    """The kernel may give all that one address opens to one process."""
    limits = {"maximum_associations": 9, "maximum_per_address": limit}
    gateway = Gateway(make_settings(tmp_path, processes=2, **limits))
    servers = [start(gateway, Share(number, 2)) for number in range(2)]
    try:
        made = [one.limits for one in servers if isinstance(one, transport.Server)]
        assert [one.per_address for one in made] == held
    finally:
        for one in servers:
            one.shutdown()
        gateway.close()


def test_a_limit_that_leaves_a_process_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"maximum_associations is shared by listener\.processes"):
        make_settings(tmp_path, processes=3, maximum_associations=2)


def test_a_process_whose_porch_hangs_does_not_say_that_it_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "STALE", 0.6)
    beats: list[float] = []
    stuck = threading.Event()
    gateway = Gateway(make_settings(tmp_path))
    server = start(gateway, Share(beat=lambda: beats.append(time.monotonic())))
    assert isinstance(server, transport.Server)
    try:
        time.sleep(1.2)
        assert len(beats) >= 2
        monkeypatch.setattr(server._porch, "_welcome", stuck.wait)
        time.sleep(1.2)
        count = len(beats)
        time.sleep(1.2)
        assert len(beats) == count
    finally:
        monkeypatch.undo()
        stuck.set()
        server.shutdown()
        gateway.close()


def test_a_process_whose_commit_hangs_does_not_say_that_it_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    stuck = threading.Event()
    gateway = Gateway(make_settings(tmp_path))
    data_set = image()
    incoming = gateway.incoming("modality", Context(CT, str(data_set.SOPInstanceUID), SYNTAX))
    incoming.write(encoded(data_set))
    beat = beat_to_parent(gateway.committing_seconds)
    beat()
    assert capfd.readouterr().out == "\n"
    monkeypatch.setattr(sharing, "STUCK", 0.2)
    monkeypatch.setattr(Writer, "hold_name", lambda writer, path: stuck.wait())
    committing = threading.Thread(target=incoming.commit)
    committing.start()
    try:
        time.sleep(0.5)
        beat()
        assert capfd.readouterr().out == ""
    finally:
        stuck.set()
        committing.join()
        gateway.close()
    assert gateway.committing_seconds() == 0.0
