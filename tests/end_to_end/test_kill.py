"""SIGKILL at every durable step: nothing accepted is lost, every Study ends, no Instance has two digests."""

from __future__ import annotations

import hashlib
import os
import signal
from datetime import UTC, datetime
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pydicom
import pytest
import yaml
from sqlalchemy import select

from pacs_ai import phantom
from pacs_ai.cli.files import data_set_bytes
from pacs_ai.failpoint import PLACES
from pacs_ai.ledger import tables
from pacs_ai.spool import DIRECT
from tests.peers.postgresql import Cluster
from tests.running import ROOT, Models, Running, running_gateway, write_settings

REMOVAL = [place for place in PLACES if place.startswith("retention.")]
WALKED = [place for place in PLACES if place not in REMOVAL]
"""What a Study that comes in passes."""


@pytest.fixture(scope="module")
def thorax() -> tuple[pydicom.Dataset, ...]:
    made = phantom.thorax_ct(name="kill", when=datetime.now(UTC), slices=64, rows=64)
    for one in made:  # an Instance of usual size is written otherwise than a small one
        one.DataSetTrailingPadding = bytes(DIRECT)
    return made


def _settings(folder: Path, models: Models, **sections: Any) -> Path:
    rules = yaml.safe_load((ROOT / "config/demo.yaml").read_text())["rules"]
    label = {"when": {"state": ["done"]}, "label": "AI-STATUS", "audience": "imaging-it"}
    return write_settings(
        folder,
        models,
        rules=[rule for rule in rules if "ct" in rule["name"]],
        worklist=[label],
        **sections,
    )


def _rounds() -> list[list[str]]:
    """Return the places so that a round holds one of each step: three at one row would hold it."""
    steps: dict[str, list[str]] = {}
    for place in WALKED:
        steps.setdefault(place.split(".")[0], []).append(place)
    rounds = zip_longest(*steps.values())
    return [[place for place in places if place is not None] for places in rounds]


def test_every_place_is_walked_in_one_of_the_rounds() -> None:
    # That PLACES is what the code calls is test_architecture's; a place on which nobody dies fails below.
    assert sorted(place for places in _rounds() for place in places) == sorted(WALKED)
    assert all(
        len({place.split(".")[0] for place in places}) == len(places) for places in _rounds()
    )


@pytest.mark.parametrize("places", _rounds(), ids="+".join)
def test_a_death_at_each_step_loses_nothing(
    places: list[str], tmp_path: Path, models: Models, thorax: tuple[pydicom.Dataset, ...]
) -> None:
    _send_through_deaths(places, tmp_path, models, thorax)


@pytest.mark.soak
@pytest.mark.parametrize("place", WALKED)
def test_a_death_at_one_step_loses_nothing(
    place: str, tmp_path: Path, models: Models, thorax: tuple[pydicom.Dataset, ...]
) -> None:
    _send_through_deaths([place], tmp_path, models, thorax)


def _send_through_deaths(
    places: list[str], folder: Path, models: Models, thorax: tuple[pydicom.Dataset, ...]
) -> None:
    study = str(thorax[0].StudyInstanceUID)
    with running_gateway(_settings(folder, models), failpoints=places) as gateway:
        gateway.send(thorax)
        timeline = gateway.wait_ended(study)
        alive = [one.name for one in (folder / "armed").iterdir()]
        assert not alive, f"nobody died there: {alive}"
        assert timeline["state"] == "done"
        _assert_whole(gateway, thorax, timeline)


def _assert_whole(
    gateway: Running, sent: tuple[pydicom.Dataset, ...], timeline: dict[str, Any]
) -> list[dict[str, Any]]:
    held = gateway.views.instances(str(sent[0].StudyInstanceUID))
    assert sorted(one["SOPInstanceUID"] for one in held) == sorted(
        str(one.SOPInstanceUID) for one in sent
    )
    spool = gateway.settings.spool_path
    for one in held:
        path = spool / "instances" / one["digest"][:2]
        path /= f"{one['digest']}.{one['transfer_syntax_uid']}.dcm"
        assert hashlib.sha256(data_set_bytes(path.read_bytes())).hexdigest() == one["digest"]
    assert {delivery["state"] for delivery in timeline["deliveries"]} == {"stored"}
    delivered = sorted(_destination(gateway).rglob("*.dcm"))
    digests = {_uid(path): _digest(path) for path in delivered}
    assert len(digests) == len(delivered) == len(timeline["deliveries"])
    made = {one["SOPInstanceUID"]: one["digest"] for one in timeline["objects"]}
    assert digests == made
    kinds = [one["kind"] for one in timeline["objects"]]
    assert sorted(kinds) == ["capture", "report", "segmentation"]
    assert len(timeline["workitems"]) == 1
    return held


def _destination(gateway: Running) -> Path:
    destination = gateway.settings.destinations["results"]
    assert destination.kind == "folder"
    return destination.path


def _uid(path: Path) -> str:
    return str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID)


def _digest(path: Path) -> str:
    return hashlib.sha256(data_set_bytes(path.read_bytes())).hexdigest()


def test_a_removal_goes_on_after_a_death_at_each_step_of_it(
    tmp_path: Path, models: Models, thorax: tuple[pydicom.Dataset, ...]
) -> None:
    study = str(thorax[0].StudyInstanceUID)
    with running_gateway(_settings(tmp_path, models)) as gateway:
        gateway.send(thorax)
        assert gateway.wait_ended(study)["state"] == "done"
        whole = _assert_whole(gateway, thorax, gateway.views.timeline(study))
    kept = {"sources": "1s", "results": "1h"}
    with running_gateway(
        _settings(tmp_path, models, retention=kept), failpoints=REMOVAL
    ) as gateway:
        names = {f"{one['digest']}.{one['transfer_syntax_uid']}.dcm" for one in whole}
        there = gateway.settings.spool_path / "instances"
        gateway.wait(lambda: names.isdisjoint(one.name for one in there.rglob("*.dcm")), seconds=60)
        gateway.wait(lambda: not [*(tmp_path / "armed").iterdir()])
        gateway.wait(lambda: not _listed(gateway))
        rows = gateway.views.instances(study)
        assert len(rows) == len(thorax), "the ledger remembers what it held"
        made = gateway.views.timeline(study)["objects"]
        left = {one.name[:64] for one in there.rglob("*.dcm")}
        assert left == {one["digest"] for one in made}, "results stay for their own time"


def _listed(gateway: Running) -> int:
    with gateway.ledger.database.read() as connection:
        return len(connection.execute(select(tables.removals)).all())


def test_nothing_is_lost_on_postgresql_when_processes_die_and_connections_are_cut(
    tmp_path: Path, models: Models, thorax: tuple[pydicom.Dataset, ...], postgresql: Cluster
) -> None:
    # Celery's children die and are forked again while the bell looks into the same server.
    study = str(thorax[0].StudyInstanceUID)
    database = postgresql.lend_ledger()
    path = _settings(tmp_path, models, ledger=postgresql.url(database))
    places = ["receive.recorded", "infer.answered", "encode.stored", "deliver.sent"]
    with running_gateway(path, failpoints=places) as gateway:
        gateway.send(thorax)
        gateway.wait(lambda: "infer" in _kinds(gateway))
        postgresql.cut_off(database)
        timeline = gateway.wait_ended(study)
        assert not [*(tmp_path / "armed").iterdir()]
        assert timeline["state"] == "done"
        _assert_whole(gateway, thorax, timeline)
        gateway.wait(lambda: gateway.ledger.verify_events().unsealed == 0, seconds=5)
        verdict = gateway.ledger.verify_events()
        assert verdict.broken is None
        assert verdict.sealed > len(timeline["work"])


def test_work_that_kills_three_times_is_held_and_seen(
    tmp_path: Path, models: Models, thorax: tuple[pydicom.Dataset, ...]
) -> None:
    study = str(thorax[0].StudyInstanceUID)
    path = _settings(tmp_path, models)
    with running_gateway(path, failpoints=["infer.answered"], once=False) as gateway:
        gateway.send(thorax)
        timeline = gateway.wait_ended(study)
        assert timeline["state"] == "held"
        assert "3 attempts without an outcome" in timeline["reason"]
        assert [one["strikes"] for one in timeline["work"] if one["kind"] == "infer"] == [3]


def test_the_worker_itself_and_its_broker_may_die(
    tmp_path: Path, models: Models, thorax: tuple[pydicom.Dataset, ...]
) -> None:
    study = str(thorax[0].StudyInstanceUID)
    with running_gateway(_settings(tmp_path, models)) as gateway:
        gateway.send(thorax)
        gateway.wait(lambda: "infer" in _kinds(gateway))
        os.kill(gateway.supervisor.pid("worker"), signal.SIGKILL)
        timeline = gateway.wait_ended(study)
        assert timeline["state"] == "done"
        _assert_whole(gateway, thorax, timeline)


def _kinds(gateway: Running) -> list[str]:
    with gateway.ledger.database.read() as connection:
        return [*connection.scalars(select(tables.work.c.kind))]
