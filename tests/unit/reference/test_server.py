"""The scoring contract over real HTTP, as far as it is known of the real endpoints."""

from __future__ import annotations

import base64
import gzip
import http.client
import json
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from pacs_ai.reference import score
from tests.unit.reference.pictures import KEY, dice, png, start_server

MODELS = sorted(score.MODELS)
Endpoint = Callable[[str], str]
Pictures = dict[str, NDArray[np.uint8]]
Small = tuple[nibabel.Nifti1Image, dict[str, NDArray[np.bool_]]]

CATEGORIES = {
    *("liver", "lung", "kidney", "pancreas", "heart anatomies", "brain anatomies"),
    *("eye anatomies", "vessel", "other organ", "tumor", "infection", "other lesion"),
    *("fluid disturbance", "other abnormality", "histology structure", "other"),
}


class Answer:
    """What came back: status, headers (in lower case), bytes."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.body = response.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    url: str,
    body: object = None,
    *,
    method: str = "POST",
    path: str = "/score",
    headers: Mapping[str, str] | None = None,
) -> Answer:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=120)
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    connection.request(method, path, data, {**sent, **(headers or {})})
    try:
        return Answer(connection.getresponse())
    finally:
        connection.close()


def frame(columns: list[str], *rows: object) -> dict[str, Any]:
    return {"input_data": {"columns": columns, "index": [*range(len(rows))], "data": [*rows]}}


def text(words: str) -> dict[str, Any]:
    return frame(["image", "text"], ["", words])


def assert_inner(answer: Answer, status: int) -> None:
    assert answer.status == 424
    assert answer.headers["ms-azureml-model-error-statuscode"] == str(status)
    assert answer.headers["ms-azureml-model-error-reason"]
    assert answer.headers["x-pacs-ai-reference"] == "true"


@pytest.mark.parametrize("model", MODELS)
def test_every_model_is_healthy(endpoint: Endpoint, model: str) -> None:
    answer = ask(endpoint(model), method="GET", path="/", headers={"Authorization": ""})
    assert (answer.status, answer.body) == (200, b"Healthy")
    assert answer.headers["x-pacs-ai-reference"] == "true"


@pytest.mark.parametrize(
    "credential", ["", "Bearer", "Bearer wrong", f"Basic {KEY}", KEY, f"Bearer {KEY}x"]
)
def test_without_the_key_nothing_is_answered(endpoint: Endpoint, credential: str) -> None:
    answer = ask(endpoint("insight"), text("chest"), headers={"Authorization": credential})
    assert answer.status == 401


def test_an_unknown_deployment_is_not_found(endpoint: Endpoint) -> None:
    url = endpoint("insight")
    assert ask(url, text("a"), headers={"azureml-model-deployment": "blue"}).status == 404
    assert ask(url, text("a"), headers={"azureml-model-deployment": "reference"}).status == 200


def test_a_request_id_comes_back(endpoint: Endpoint) -> None:
    url = endpoint("insight")
    answer = ask(url, text("a"), headers={"x-ms-client-request-id": "an-id"})
    assert answer.headers["x-ms-client-request-id"] == "an-id"
    assert_inner(ask(url, text("a"), headers={"x-ms-client-request-id": "x" * 101}), 431)


@pytest.mark.parametrize(
    "body",
    [
        b"no json",
        b"[]",
        {},
        {"input_data": []},
        {"input_data": {"columns": ["text"], "data": [["a", "b"]]}},
        {"input_data": {"columns": ["text"], "data": []}},
        {"input_data": {"columns": ["text"], "data": [["a"]], "rows": 1}},
        {"input_data": {"columns": ["text"], "data": [["a"]]}, "model": "x"},
        {"input_data": {"columns": ["text"], "data": [[7]]}},
        {"input_data": {"columns": ["image"], "data": [["%%%"]]}},
    ],
)
def test_a_request_that_is_none_fails_inside(endpoint: Endpoint, body: object) -> None:
    assert_inner(ask(endpoint("insight"), body), 400)


@pytest.mark.parametrize("model", ["parse2d", "parse3d", "cxrreport"])
def test_a_missing_required_column_fails_inside(endpoint: Endpoint, model: str) -> None:
    assert_inner(ask(endpoint(model), frame(["text"], ["left lung"])), 400)


@pytest.mark.parametrize(
    ("model", "column"),
    [("parse2d", "image"), ("parse3d", "image"), ("cxrreport", "frontal_image")],
)
def test_what_cannot_be_decoded_makes_the_model_fail(
    endpoint: Endpoint, model: str, column: str
) -> None:
    rubbish = base64.b64encode(b"neither picture nor volume" * 40).decode()
    assert_inner(ask(endpoint(model), frame([column, "text"], [rubbish, "lung"])), 500)


def test_a_request_over_the_limit_is_refused_before_it_is_read(endpoint: Endpoint) -> None:
    connection = http.client.HTTPConnection(urlsplit(endpoint("insight")).netloc, timeout=30)
    connection.putrequest("POST", "/score")
    connection.putheader("Authorization", f"Bearer {KEY}")
    connection.putheader("Content-Length", str(101 * 1024 * 1024))
    connection.endheaders(b"{")
    assert connection.getresponse().status == 413
    connection.close()


def test_sigterm_ends_a_server_cleanly(tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_text(KEY, encoding="utf-8")
    process, url = start_server("insight", key_file)
    assert ask(url, text("a")).status == 200
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert process.stdout is not None
    process.stdout.close()


def test_an_embedding_is_a_record_for_each_row(endpoint: Endpoint, frontals: Pictures) -> None:
    image = png(frontals["normal"])
    request = frame(["image", "text"], [image, "No Finding"], [image, "Pneumonia"])
    answer = ask(endpoint("insight"), {**request, "params": {"get_scaling_factor": True}})
    assert answer.status == 200
    assert answer.headers["x-pacs-ai-reference"] == "true"
    assert answer.headers["content-type"].startswith("application/json")
    first, second = answer.json
    assert np.shape(first["image_features"]) == (1, 1024)
    assert np.shape(first["text_features"]) == (1024,)
    assert first["image_features"] == second["image_features"]
    assert first["text_features"] != second["text_features"]


def test_masks_are_json_in_a_string_with_smooth_probabilities(
    endpoint: Endpoint, frontals: Pictures
) -> None:
    # As careless clients send it: line breaks in the base64, a row as an object, params a text.
    broken = base64.encodebytes(base64.b64decode(png(frontals["normal"]))).decode()
    prompts = ["left lung in chest X-ray", "pancreas in abdomen CT", "heart in chest X-ray"]
    row = {"image": broken, "text": " & ".join(prompts)}
    request = {"input_data": {"columns": ["image", "text"], "data": [row]}, "params": "sitk"}
    answer = ask(endpoint("parse2d"), request)
    assert answer.status == 200
    (record,) = answer.json
    assert isinstance(record["image_features"], str)
    encoded = json.loads(record["image_features"])
    assert encoded["shape"] == [3, *frontals["normal"].shape]
    assert encoded["dtype"] == "uint8"
    maps = np.frombuffer(base64.b64decode(encoded["data"]), np.uint8).reshape(encoded["shape"])
    assert maps[0].max() > 200
    assert len(np.unique(maps[0])) > 50
    assert maps[1].max() == 0
    # The patient's left is on the right of the picture.
    assert np.nonzero(maps[0] > 127)[1].mean() > frontals["normal"].shape[1] / 2
    assert len(record["text_features"]) == 3
    assert set(record["text_features"]) <= CATEGORIES


def test_an_empty_prompt_fails_inside(endpoint: Endpoint, frontals: Pictures) -> None:
    request = frame(["image", "text"], [png(frontals["normal"]), "left lung & "])
    assert_inner(ask(endpoint("parse2d"), request), 400)


def test_a_volume_is_answered_on_its_own_grid(endpoint: Endpoint, small_volume: Small) -> None:
    image, truth = small_volume
    sent = base64.b64encode(gzip.compress(image.to_bytes(), 1)).decode()
    request = frame(["image", "text"], [sent, "right lung in chest CT & left lung in chest CT"])
    answer = ask(endpoint("parse3d"), request)
    assert answer.status == 200
    (record,) = answer.json
    inner = json.loads(record["nifti_file"])
    made = nibabel.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(inner["data"])))
    assert made.shape == image.shape
    assert np.allclose(made.affine, image.affine)
    labels = np.asarray(made.dataobj)
    assert set(np.unique(labels)) == {0, 1, 2}
    assert dice(labels == 2, truth["left lung"]) > 0.95


def test_two_volumes_in_one_call_fail_inside(endpoint: Endpoint, small_volume: Small) -> None:
    sent = base64.b64encode(small_volume[0].to_bytes()).decode()
    request = frame(["image", "text"], [sent, "lung"], [sent, "lung"])
    assert_inner(ask(endpoint("parse3d"), request), 400)


def test_a_report_is_json_in_a_string_with_boxes_on_the_grid(
    endpoint: Endpoint, frontals: Pictures
) -> None:
    columns = ["frontal_image", "lateral_image", "indication", "technique", "comparison"]
    image = png(frontals["abnormal"])
    request = frame(columns, [image, image, "", "Two views", "None"])
    answer = ask(endpoint("cxrreport"), {**request, "params": {}})
    assert answer.status == 200
    (record,) = answer.json
    assert isinstance(record["output"], str)
    sentences = json.loads(record["output"])
    assert all(isinstance(sentence, str) for sentence, _ in sentences)
    assert any(boxes is None for _, boxes in sentences)
    boxes = [box for _, found in sentences for box in found or []]
    assert boxes
    for x_min, y_min, x_max, y_max in boxes:
        assert 0 < x_min < x_max < 1
        assert 0 < y_min < y_max < 1


def test_the_scoring_script_reads_its_model_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(score.VARIABLE, "insight")
    score.init()
    (record,) = score.run(text("chest")["input_data"])
    assert np.shape(record["text_features"]) == (1024,)
    monkeypatch.setenv(score.VARIABLE, "another")
    with pytest.raises(ValueError, match="parse2d"):
        score.init()
