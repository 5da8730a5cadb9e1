"""What must happen to the real images that the issue names: tests/data/expected.yaml."""

from __future__ import annotations

import tarfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from pacs_ai.routing import Outcome, Routing, Rules, explain_text, parse, route
from pacs_ai.settings import load
from pacs_ai.study import Instance, Study, read_instance

ROOT = Path(__file__).parents[3]
DATA = ROOT.parent / "shared" / "data"
EXPECTED: dict[str, Any] = {
    name: one
    for name, one in yaml.safe_load((ROOT / "tests/data/expected.yaml").read_text()).items()
    if "jobs" in one
}
NOW = datetime(2026, 11, 23, tzinfo=UTC)


@pytest.fixture(scope="module")
def demo_rules() -> Rules:
    return parse(load(ROOT / "config/demo.yaml"))


def _instances(name: str, scratch: Path) -> tuple[Instance, ...]:
    archive, _, member = name.partition("!")
    if not archive.endswith(".tar.xz"):
        return (read_instance(DATA / name, digest=name),)
    with tarfile.open(DATA / archive) as packed:
        packed.extractall(scratch, filter="data")
    files = sorted(path for path in scratch.rglob(member or "*.dcm") if path.is_file())
    return tuple(read_instance(path, digest=path.name) for path in files)


def _routing(name: str, scratch: Path, rules: Rules) -> Routing:
    instances = _instances(name, scratch)
    study = Study(str(instances[0].header.StudyInstanceUID), instances, NOW, "file")
    return route(study, rules, now=NOW)


@pytest.mark.parametrize("name", [name for name, one in EXPECTED.items() if "jobs" in one])
def test_a_real_image_goes_where_it_must(name: str, tmp_path: Path, demo_rules: Rules) -> None:
    expected, routing = EXPECTED[name], _routing(name, tmp_path, demo_rules)
    jobs: dict[str, list[str]] = {}
    for job in routing.jobs:
        jobs.setdefault(job.rule, []).append(job.endpoint)
        assert job.parameters.get("view") == expected.get("view")
        for words in expected["notes"]:
            assert any(words in note for note in job.parameters["notes"])
    assert jobs == expected["jobs"]
    verdicts = {verdict.rule: verdict for verdict in routing.verdicts}
    for rule, words in expected["verdicts"].items():
        assert words in verdicts[rule].deciding
        assert verdicts[rule].outcome is not Outcome.YES
        assert words in explain_text(routing)


def test_the_real_thorax_gives_every_slice_to_the_model(tmp_path: Path, demo_rules: Rules) -> None:
    (name,) = (one for one in EXPECTED if one.startswith("ct-thorax"))
    (job,) = _routing(name, tmp_path, demo_rules).jobs
    assert len(job.inputs["volume"]) == 64
    assert job.parameters["prompts"] == ["left lung", "right lung", "bone", "body"]


def test_an_image_without_a_view_is_read_only_by_a_rule_of_its_own(tmp_path: Path) -> None:
    text = (ROOT / "config/demo.yaml").read_text()
    vouched = tmp_path / "vouched.yaml"
    vouched.write_text(text.replace("unknown: not_suitable", "unknown: frontal", 1))
    routing = _routing("cxr/nih-test1-dx.dcm", tmp_path, parse(load(vouched)))
    assert [job.endpoint for job in routing.jobs] == ["insight", "parse2d", "cxrreport"]
    assert all(job.parameters["view_from"] == "rule" for job in routing.jobs)
    (masks,) = (job for job in routing.jobs if job.kind == "parse2d")
    assert masks.parameters["measure"] == {"ctr": False}
