"""The scoring client against a scriptable endpoint: what it sends, and what it makes of answers."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pacs_ai.errors import InferenceError, InferenceUnavailableError
from pacs_ai.models import answer
from pacs_ai.models.endpoint import score
from tests.unit.models.fake_endpoint import Answer, Asked, FakeEndpoint, endpoint, key

ROW = [("aW1hZ2U=", "SECRET prompt")]
FINE = Answer([{"x": 1}])


def ask(fake: FakeEndpoint, **changes: Any) -> list[dict[str, Any]]:
    return score(fake.settings(**changes), ("image", "text"), ROW)


def test_a_request_over_the_limit_is_not_sent() -> None:
    with endpoint(FINE) as fake:
        ask(fake, maximum_request=1000)
        with pytest.raises(InferenceError, match=r"larger than maximum_request \(50\)"):
            ask(fake, maximum_request=50)
    assert len(fake.asked) == 1


def one_each(asked: Asked) -> list[dict[str, Any]]:
    return [{"seen": row[0]} for row in asked.body["input_data"]["data"]]


def test_rows_that_one_request_does_not_take_go_in_several_and_come_back_in_order() -> None:
    rows = [(str(index) * 100, "") for index in range(8)]
    with endpoint(one_each) as fake:
        settings = fake.settings(maximum_request=500)
        assert score(settings, ("image", "text"), rows) == [{"seen": image} for image, _ in rows]
    assert len(fake.asked) < len(rows)
    for asked in fake.asked:
        assert len(json.dumps(asked.body)) <= 500
        table = asked.body["input_data"]
        assert table["index"] == list(range(len(table["data"])))


def test_a_row_that_no_request_takes_is_refused_with_what_the_front_door_must_take() -> None:
    rows = [("1" * 100, ""), ("2" * 1000, "")]
    with (
        endpoint(one_each) as fake,
        pytest.raises(InferenceError, match="cannot be divided: let the endpoint's front door"),
    ):
        score(fake.settings(maximum_request=500), ("image", "text"), rows)


def test_request_is_that_of_the_public_contract(tmp_path: Path) -> None:
    secret = tmp_path / "key"
    secret.write_text("k-123\n")
    secret.chmod(0o600)
    with endpoint(FINE) as fake:
        settings = fake.settings(key=key(str(secret)), deployment="blue")
        assert score(settings, ("image", "text"), ROW, {"p": 1}) == [{"x": 1}]
    asked = fake.asked[0]
    assert asked.path == "/score"
    assert asked.body == {
        "input_data": {"columns": ["image", "text"], "index": [0], "data": [list(ROW[0])]},
        "params": {"p": 1},
    }
    assert asked.headers["authorization"] == "Bearer k-123"
    assert asked.headers["azureml-model-deployment"] == "blue"
    assert asked.headers["content-type"] == "application/json"


def test_params_and_headers_that_are_not_set_are_not_sent() -> None:
    with endpoint(FINE) as fake:
        ask(fake)
    assert "params" not in fake.asked[0].body
    assert not {"authorization", "azureml-model-deployment"} & set(fake.asked[0].headers)


def test_request_id_is_new_for_each_call() -> None:
    with endpoint(FINE) as fake:
        ask(fake)
        ask(fake)
    ids = {asked.headers["x-ms-client-request-id"] for asked in fake.asked}
    assert len(ids) == 2
    assert all(len(one) <= 100 for one in ids)


def test_answer_to_another_request_is_refused() -> None:
    with (
        endpoint(Answer([{"x": 1}], headers={"x-ms-client-request-id": "another"})) as fake,
        pytest.raises(InferenceError, match="another request"),
    ):
        ask(fake)


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (408, {}),
        (429, {}),
        (500, {}),
        (503, {}),
        (424, {}),
        (424, {"ms-azureml-model-error-statuscode": "500"}),
        (424, {"ms-azureml-model-error-statuscode": "429"}),
    ],
)
def test_status_that_time_may_heal_is_transient(status: int, headers: dict[str, str]) -> None:
    with (
        endpoint(Answer(b"busy", status, headers)) as fake,
        pytest.raises(InferenceUnavailableError, match=str(status)),
    ):
        ask(fake)
    assert len(fake.asked) == 1


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (400, {}),
        (403, {}),
        (404, {}),
        (413, {}),
        (307, {"Location": "http://127.0.0.1:9/"}),
        (424, {"ms-azureml-model-error-statuscode": "400"}),
    ],
)
def test_status_that_needs_a_person_is_not_transient(status: int, headers: dict[str, str]) -> None:
    with endpoint(Answer(b"no", status, headers)) as fake, pytest.raises(InferenceError) as caught:
        ask(fake)
    assert not isinstance(caught.value, InferenceUnavailableError)
    assert str(status) in str(caught.value)
    assert len(fake.asked) == 1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7.0),
        ("1.5", 1.5),
        ("-3", None),
        ("nan", None),
        ("Wed, 21 Oct 2037 07:28:00 GMT", None),
    ],
)
def test_retry_after_is_handed_on(text: str, seconds: float | None) -> None:
    with (
        endpoint(Answer(b"", 429, {"Retry-After": text})) as fake,
        pytest.raises(InferenceUnavailableError) as caught,
    ):
        ask(fake)
    assert caught.value.retry_after == seconds


def test_key_is_read_again_once_after_401(tmp_path: Path) -> None:
    secret = tmp_path / "key"
    secret.write_text("old")
    secret.chmod(0o600)

    def rotate(_: object) -> Answer:
        secret.write_text("new")
        return Answer(b"", 401)

    with endpoint(rotate, FINE) as fake:
        assert ask(fake, key=key(str(secret))) == [{"x": 1}]
    assert [one.headers["authorization"] for one in fake.asked] == ["Bearer old", "Bearer new"]


@pytest.mark.parametrize("held", [None, b"", b"one\ntwo", "ключ".encode()])
def test_a_key_that_is_being_rotated_is_waited_for(tmp_path: Path, held: bytes | None) -> None:
    secret = tmp_path / "key"
    with endpoint(FINE) as fake:
        if held is not None:
            secret.write_bytes(held)
            secret.chmod(0o600)
        with pytest.raises(InferenceUnavailableError, match="put the key") as caught:
            ask(fake, key=key(str(secret)))
        assert "ключ" not in str(caught.value)
        secret.write_bytes(b"\xef\xbb\xbfkey\r\n")
        secret.chmod(0o600)
        assert ask(fake, key=key(str(secret))) == [{"x": 1}]
    (asked,) = fake.asked
    assert asked.headers["authorization"] == "Bearer key"


def test_second_401_is_a_wrong_key() -> None:
    with endpoint(Answer(b"", 401)) as fake, pytest.raises(InferenceError, match="key") as caught:
        ask(fake)
    assert not isinstance(caught.value, InferenceUnavailableError)
    assert len(fake.asked) == 2


def test_late_answer_is_transient_and_waiting_ends_at_the_timeout() -> None:
    with endpoint(Answer([{}], delay=1.5)) as fake:
        begin = time.monotonic()
        with pytest.raises(InferenceUnavailableError):
            ask(fake, timeout=timedelta(seconds=0.3))
        assert time.monotonic() - begin < 1.2


@pytest.mark.parametrize(
    "fault", [Answer([{"x": 1}], cut=True), Answer([{"x": "y" * 99}], drip=0.05)]
)
def test_half_an_answer_is_none(fault: Answer) -> None:
    with endpoint(fault) as fake, pytest.raises(InferenceUnavailableError):
        ask(fake, timeout=timedelta(seconds=0.5))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"garbage",
        b'[{"x": NaN}]',
        b'[{"x": -Infinity}]',
        b'[{"x": 1e999}]',
        b'[{"x": ' + b"[" * 40 + b"]" * 40 + b"}]",
        b'[{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}]",
        b"[1, 2]",
        b'"text"',
        b"[]",
        b'[{"x": 1}, {"x": 2}]',
    ],
)
def test_body_that_is_not_one_record_is_refused(body: bytes) -> None:
    with endpoint(Answer(body)) as fake, pytest.raises(InferenceError) as caught:
        ask(fake)
    assert not isinstance(caught.value, InferenceUnavailableError)


@pytest.mark.parametrize(
    "body", [[{"x": 1}], {"x": 1}, {"predictions": [{"x": 1}]}], ids=["list", "bare", "mlflow"]
)
def test_record_is_found_in_each_wrapping(body: Any) -> None:
    with endpoint(Answer(body)) as fake:
        assert ask(fake) == [{"x": 1}]


def test_huge_answer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pacs_ai.models.endpoint.BODY_LIMIT", 1000)
    with endpoint(Answer([{"x": "y" * 5000}])) as fake, pytest.raises(InferenceError, match="1000"):
        ask(fake)


def test_array_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer, "LENGTH_LIMIT", 10)
    with endpoint(Answer([{"x": [0] * 11}])) as fake, pytest.raises(InferenceError, match="array"):
        ask(fake)


def test_reference_server_behind_a_real_name_is_refused() -> None:
    says = Answer([{"x": 1}], headers={"x-pacs-ai-reference": "true"})
    with endpoint(says) as fake:
        with pytest.raises(InferenceError, match="reference: true"):
            ask(fake)
        assert ask(fake, reference=True) == [{"x": 1}]


@pytest.mark.parametrize(
    "script", [Answer(b"SECRET leak", 400), Answer(b"SECRET leak"), Answer(b"", 500)]
)
def test_no_message_quotes_the_request_or_the_answer(script: Answer, tmp_path: Path) -> None:
    secret = tmp_path / "key"
    secret.write_text("SECRET-key")
    secret.chmod(0o600)
    with endpoint(script) as fake, pytest.raises(InferenceError) as caught:
        ask(fake, key=key(str(secret)))
    assert "SECRET" not in str(caught.value)
    assert "aW1hZ2U" not in str(caught.value)
