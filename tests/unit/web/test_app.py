"""The HTTP face over fake views; Workitems are the real data sets of the gateway."""

import signal
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from urllib.parse import quote

import pytest
import requests
from pydicom.dataset import Dataset
from starlette.applications import Starlette
from starlette.testclient import TestClient

from pacs_ai.ledger.engine import LedgerBusyError
from pacs_ai.ledger.tokens import Token
from pacs_ai.settings import Reading
from pacs_ai.web import search
from pacs_ai.web.app import create_app
from pacs_ai.web.guard import Guard
from pacs_ai.web.store import Store
from pacs_ai.worklist import Audience, Decision, Priority
from pacs_ai.worklist.workitem import build, to_json
from tests.unit.web.serving import serving

WHEN = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)


def workitem(number: int, priority: Priority, label: str, **elements: str) -> dict[str, Any]:
    header = Dataset()
    header.StudyInstanceUID = f"1.2.{number}"
    header.PatientName = "Doe^Jane"
    header.PatientID = f"P{number}"
    header.AccessionNumber = f"A{number}"
    decision = Decision(label, priority, ("thoracic",), (), Audience.READER, None, "Because")
    dataset = build(
        decision=decision,
        header=header,
        inputs=(),
        uid=f"2.25.{number}",
        when=WHEN + timedelta(minutes=number),
        organization="Site",
    )
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return to_json(dataset)


class FakeViews:
    """Three Workitems, one of them taken up."""

    def __init__(self) -> None:
        self.condition: dict[str, Any] = {"ledger": "answers"}
        self.items = [
            workitem(1, Priority.LOW, "AI-CXR-INFO"),
            workitem(2, Priority.HIGH, "AI-CXR-REVIEW"),
            workitem(
                3,
                Priority.HIGH,
                "AI-CXR-REVIEW",
                ProcedureStepState="IN PROGRESS",
                TransactionUID="2.25.99",
            ),
        ]

    def workitems(self) -> Sequence[Mapping[str, Any]]:
        return self.items

    def workitem(self, uid: str) -> Mapping[str, Any] | None:
        return next((one for one in self.items if one["00080018"]["Value"] == [uid]), None)

    def studies(self) -> Sequence[Mapping[str, Any]]:
        return [{"StudyInstanceUID": "1.2.1", "state": "done"}]

    def health(self) -> Mapping[str, Any]:
        return self.condition


@pytest.fixture
def views() -> FakeViews:
    return FakeViews()


class NoTokens:
    """Knows no token."""

    def find(self, text: str) -> Token | None:
        return None


def reading_app(views: FakeViews, *, problems: Sequence[str] = ()) -> Starlette:
    """Return the application as it reads on loopback; nothing can be stored."""
    nothing = cast("Any", None)
    guard = Guard(NoTokens(), Reading.OPEN)
    store = Store(nothing, guard, nothing)
    return create_app(views, guard, store, problems=lambda: problems)


@pytest.fixture
def client(views: FakeViews) -> TestClient:
    app = reading_app(views)
    return TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False)


def found(client: TestClient, query: str) -> list[str]:
    answer = client.get(f"/dicom-web/workitems?{query}")
    if answer.status_code == 204:
        return []
    assert answer.status_code == 200, answer.text
    return [one["00080018"]["Value"][0] for one in answer.json()]


def test_a_search_without_keys_lists_the_most_urgent_first_then_the_oldest(
    client: TestClient,
) -> None:
    answer = client.get("/dicom-web/workitems")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/dicom+json"
    assert found(client, "") == ["2.25.2", "2.25.3", "2.25.1"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("WorklistLabel=AI-CXR-REVIEW", ["2.25.2", "2.25.3"]),
        ("00741202=AI-CXR-REVIEW", ["2.25.2", "2.25.3"]),
        ("WorklistLabel=AI-CXR-*", ["2.25.2", "2.25.3", "2.25.1"]),
        ("WorklistLabel=AI-CXR-INF?", ["2.25.1"]),
        ("WorklistLabel=AI.CXR.INFO", []),
        ("WorklistLabel=ai-cxr-info", []),
        ("WorklistLabel=", ["2.25.2", "2.25.3", "2.25.1"]),
        ("ScheduledProcedureStepPriority=LOW", ["2.25.1"]),
        ("ProcedureStepState=SCHEDULED", ["2.25.2", "2.25.1"]),
        ("ProcedureStepState=IN%20PROGRESS", ["2.25.3"]),
        ("StudyInstanceUID=1.2.1", ["2.25.1"]),
        ("StudyInstanceUID=1.2.1,1.2.3", ["2.25.3", "2.25.1"]),
        ("StudyInstanceUID=1.2.1%5C1.2.3", ["2.25.3", "2.25.1"]),
        ("StudyInstanceUID=1.2", []),
        ("PatientID=P2", ["2.25.2"]),
        ("AccessionNumber=A2", ["2.25.2"]),
        ("ReferencedRequestSequence.AccessionNumber=A2", ["2.25.2"]),
        ("0040A370.00080050=A2", ["2.25.2"]),
        ("ScheduledWorkitemCodeSequence.CodeValue=110005", ["2.25.2", "2.25.3", "2.25.1"]),
        (
            "ScheduledHumanPerformersSequence.HumanPerformerCodeSequence.CodeValue=thoracic",
            ["2.25.2", "2.25.3", "2.25.1"],
        ),
        ("WorklistLabel=AI-CXR-REVIEW&ProcedureStepState=SCHEDULED", ["2.25.2"]),
        ("PatientID=P1&AccessionNumber=A2", []),
        ("limit=1", ["2.25.2"]),
        ("limit=1&offset=1", ["2.25.3"]),
        ("offset=9", []),
        ("includefield=all", ["2.25.2", "2.25.3", "2.25.1"]),
        ("includefield=PatientName,00741204&limit=1", ["2.25.2"]),
    ],
)
def test_keys_select(client: TestClient, query: str, expected: list[str]) -> None:
    assert found(client, query) == expected


def test_nothing_found_is_204_without_a_body(client: TestClient) -> None:
    answer = client.get("/dicom-web/workitems?PatientID=nobody")
    assert answer.status_code == 204
    assert answer.content == b""


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ("Worklistlabel=x", "Worklistlabel"),
        ("00100010=Doe", "00100010"),
        ("ReferencedRequestSequence.PatientID=x", "ReferencedRequestSequence.PatientID"),
        ("limit=0", "limit"),
        ("limit=-1", "limit"),
        ("limit=ten", "limit"),
        ("limit=%C2%B2", "limit"),
        ("limit=1&limit=2", "twice"),
        ("offset=", "offset"),
        ("PatientID=a&00100020=b", "twice"),
        ("fuzzymatching=perhaps", "fuzzymatching"),
        ("includefield=Nonsense", "Nonsense"),
        ("x" * 5000 + "=1", "xxx"),
    ],
)
def test_a_bad_query_is_400_and_says_what_is_wrong(
    client: TestClient, query: str, word: str
) -> None:
    answer = client.get(f"/dicom-web/workitems?{query}")
    assert answer.status_code == 400
    assert word in answer.json()["error"]
    assert len(answer.text) < 1500


def test_fuzzy_matching_is_done_literally_and_says_so(client: TestClient) -> None:
    answer = client.get("/dicom-web/workitems?PatientID=P2&fuzzymatching=true")
    assert answer.status_code == 200
    assert answer.headers["warning"].startswith("299 ")
    assert "fuzzymatching" in answer.headers["warning"]


def test_a_list_that_is_cut_says_206(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "MAXIMUM", 2)
    assert client.get("/dicom-web/workitems").status_code == 206
    assert client.get("/dicom-web/workitems?limit=5").status_code == 206
    assert client.get("/dicom-web/workitems?limit=2").status_code == 200
    assert client.get("/dicom-web/workitems?offset=1").status_code == 200


def test_one_workitem_is_an_array_of_one_data_set(client: TestClient) -> None:
    answer = client.get("/dicom-web/workitems/2.25.2")
    assert answer.status_code == 200
    (only,) = answer.json()
    assert Dataset.from_json(only).WorklistLabel == "AI-CXR-REVIEW"


def test_the_transaction_uid_is_never_told(client: TestClient) -> None:
    assert "2.25.99" not in client.get("/dicom-web/workitems").text
    assert "2.25.99" not in client.get("/dicom-web/workitems/2.25.3").text


def test_an_unknown_workitem_is_404(client: TestClient) -> None:
    assert client.get("/dicom-web/workitems/1.2.3.4").status_code == 404
    assert client.get("/dicom-web/nothing").status_code == 404


@pytest.mark.parametrize("path", ["/dicom-web/workitems", "/dicom-web/workitems/2.25.2"])
@pytest.mark.parametrize(
    ("accept", "status", "media_type"),
    [
        ("application/dicom+json", 200, "application/dicom+json"),
        ("application/json", 200, "application/json"),
        ("*/*", 200, "application/dicom+json"),
        ("text/html, application/*;q=0.8", 200, "application/dicom+json"),
        ('multipart/related; type="application/dicom+xml"', 406, "application/json"),
        ("application/dicom+xml", 406, "application/json"),
        ("application/dicom+json;q=0, text/html", 406, "application/json"),
    ],
)
def test_only_json_is_offered(
    client: TestClient, path: str, accept: str, status: int, media_type: str
) -> None:
    answer = client.get(path, headers={"Accept": accept})
    assert answer.status_code == status
    assert answer.headers["content-type"] == media_type


@pytest.mark.parametrize("value", ["application/dicom+json", quote("application/dicom+json")])
def test_the_media_type_may_stand_in_the_query(client: TestClient, value: str) -> None:
    answer = client.get(f"/dicom-web/workitems?accept={value}", headers={"Accept": "text/html"})
    assert answer.status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("path", ["/dicom-web/workitems", "/dicom-web/workitems/2.25.2", "/status"])
def test_nothing_can_be_written(client: TestClient, method: str, path: str) -> None:
    assert client.request(method, path).status_code == 405


def test_status_lists_the_studies(client: TestClient) -> None:
    assert client.get("/status").json() == {
        "studies": [{"StudyInstanceUID": "1.2.1", "state": "done"}]
    }


def test_health_is_503_when_the_gateway_is_not_well(client: TestClient, views: FakeViews) -> None:
    assert client.get("/health").status_code == 200
    views.condition["healthy"] = False
    answer = client.get("/health")
    assert answer.status_code == 503
    assert answer.json()["ledger"] == "answers"


def test_health_is_503_with_what_to_do_when_the_ledger_does_not_answer(
    client: TestClient, views: FakeViews, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone() -> Mapping[str, Any]:
        raise LedgerBusyError("the ledger is gone: do this")

    monkeypatch.setattr(views, "health", gone)
    answer = client.get("/health")
    assert answer.status_code == 503
    assert answer.json()["problems"] == ["the ledger is gone: do this"]


def test_health_is_503_when_something_else_is_wrong_and_says_what_to_do(views: FakeViews) -> None:
    views.condition["healthy"] = True
    app = reading_app(views, problems=("the disk is full: make room",))
    answer = TestClient(app, base_url="http://127.0.0.1").get("/health")
    assert answer.status_code == 503
    assert answer.json()["healthy"] is False
    assert answer.json()["problems"] == ["the disk is full: make room"]


def test_a_name_that_is_not_loopback_gets_nothing(client: TestClient) -> None:
    answer = client.get("/dicom-web/workitems", headers={"Host": "evil.example"})
    assert answer.status_code == 400
    assert "Doe" not in answer.text


@pytest.mark.parametrize("host", ["localhost:8080", "[::1]:8080", "127.0.0.1"])
def test_loopback_names_are_answered(client: TestClient, host: str) -> None:
    assert client.get("/health", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    ("path", "host", "status"),
    [
        ("/health", "127.0.0.1", 200),
        ("/nowhere", "127.0.0.1", 404),
        ("/dicom-web/workitems?limit=x", "127.0.0.1", 400),
        ("/health", "evil.example", 400),
    ],
)
def test_every_answer_carries_the_safe_headers(
    client: TestClient, path: str, host: str, status: int
) -> None:
    _assert_safe(client, path, host, status)


def test_a_failure_tells_nothing_and_carries_the_safe_headers(
    client: TestClient, views: FakeViews, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> Sequence[Mapping[str, Any]]:
        raise RuntimeError("Doe^Jane")

    monkeypatch.setattr(views, "studies", broken)
    _assert_safe(client, "/status", "127.0.0.1", 500)
    assert "Doe" not in client.get("/status").text


def _assert_safe(client: TestClient, path: str, host: str, status: int) -> None:
    answer = client.get(path, headers={"Host": host})
    assert answer.status_code == status
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


SERVED = """
import sys
from tests.unit.web.test_app import FakeViews, reading_app
from pacs_ai.settings import Web
from pacs_ai.web.app import run
port = int(sys.argv[1])
run(reading_app(FakeViews()), Web(port=port), ready=lambda: print("ready", flush=True))
"""


def test_it_is_served_quietly_and_ends_with_zero_on_sigterm() -> None:
    with serving(SERVED) as (process, port):
        url = f"http://127.0.0.1:{port}/dicom-web/workitems?PatientID=P2"
        answer = requests.get(url, timeout=5)
        assert answer.json()[0]["00100020"]["Value"] == ["P2"]
        assert "server" not in answer.headers
        process.send_signal(signal.SIGTERM)
        printed, _ = process.communicate(timeout=20)
    assert process.returncode == 0, printed
    assert "P2" not in printed
