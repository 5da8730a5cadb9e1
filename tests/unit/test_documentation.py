"""The pages say what the code does: generated tables, examples, links and commands."""

from __future__ import annotations

import inspect
import re
import runpy
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.main import get_command

from pacs_ai import settings
from pacs_ai.cli.commands import app
from pacs_ai.encoding import ENCODERS, TRANSFER_SYNTAX_UID
from pacs_ai.ledger import views
from pacs_ai.ledger.rows import State
from pacs_ai.results import Narrative, Segmentation, Sentence
from tests.peers.orthanc import FORWARD_STABLE_STUDIES
from tests.unit.encoding import sources as make

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *DOCS.glob("*.md")])
GENERATOR: dict[str, Any] = runpy.run_path(str(DOCS / "generate.py"))


def _names(pages: list[Path]) -> list[str]:
    return [str(page.relative_to(ROOT)) for page in pages]


# ---------------------------------------------------------------------- generated tables


@pytest.mark.parametrize("page", GENERATOR["PAGES"])
def test_a_reference_page_is_what_the_generator_makes(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    assert GENERATOR["render"](text) == text, "run: python docs/generate.py"


def test_every_generated_part_stands_on_a_page() -> None:
    texts = "".join((DOCS / page).read_text(encoding="utf-8") for page in GENERATOR["PAGES"])
    assert set(re.findall(r"<!-- generated: ([a-z-]+) -->", texts)) == set(GENERATOR["PARTS"])


def test_every_state_that_a_study_can_have_is_explained() -> None:
    named = set(re.findall(r'StudyState\("(\w+)"', inspect.getsource(views)))
    listed = re.findall(r"\| `(\w+)` \|", GENERATOR["PARTS"]["study-states"]())
    assert set(listed) == named | {str(state) for state in (State.HELD, State.FAILED)}


@pytest.mark.parametrize("kind", ENCODERS)
def test_the_sop_class_on_the_page_is_the_one_that_is_written(kind: str, tmp_path: Path) -> None:
    scan = make.volume(tmp_path)
    uids = tuple(one.SOPInstanceUID for one in scan)
    rows, columns = int(scan[0].header.Rows), int(scan[0].header.Columns)
    mask = np.zeros((len(scan), rows, columns), bool)
    mask[:, 1:4, 1:4] = True
    entry = make.entry(
        Segmentation("left lung", mask, uids, "left lung in chest CT"),
        Narrative((Sentence("A sentence."),), uids),
        kind="parse3d",
        sources=uids,
    )
    (made, *_) = ENCODERS[kind](make.encoding(make.study(scan), entry))
    row = ENCODERS[kind]
    assert (made.SOPClassUID, made.Modality) == (row.sop_class_uid, row.modality)
    assert made.file_meta.TransferSyntaxUID == TRANSFER_SYNTAX_UID
    number = 9001 + list(ENCODERS).index(kind)
    assert (int(made.SeriesNumber) - number) % (1 if kind == "capture" else 10) == 0


def test_a_default_is_shown_as_a_settings_file_would_write_it() -> None:
    assert GENERATOR["_shown"]("x", timedelta(hours=48)) == "`48h`"
    assert settings.parse_duration("48h") == timedelta(hours=48)
    assert GENERATOR["_shown"]("x", 4 * 2**30) == "`4GiB`"
    assert settings.parse_size("4GiB") == 4 * 2**30
    table = GENERATOR["PARTS"]["settings"]()
    shown = re.findall(r"`(\d+(?:ms|s|m|h|d))`", table)
    assert len(shown) > 10
    for text in shown:
        settings.parse_duration(text)


# ---------------------------------------------------------------------- examples


def _blocks(page: Path, language: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


EXAMPLES = [
    pytest.param(block, id=f"{page.name}-{number}")
    for page in PAGES
    if page.name != "rules.md"
    for number, block in enumerate(_blocks(page, "yaml"))
]


@pytest.mark.parametrize("block", EXAMPLES)
def test_an_example_of_settings_is_one(block: str) -> None:
    site = {"name": "Test", "time_zone": "Etc/UTC", "use": "research", "responsible": "nobody"}
    peer = {"ae_titles": ["X"], "host": "192.0.2.1", "port": 104}
    base = {"site": site, "peers": {"x": peer}}
    settings.loads(yaml.safe_dump({**base, **yaml.safe_load(block)}))


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 5


def test_the_script_for_orthanc_is_the_one_that_the_tests_run() -> None:
    (script,) = _blocks(DOCS / "point-your-pacs-here.md", "lua")
    assert script.strip() == FORWARD_STABLE_STUDIES.strip()


def _commands(page: Path) -> set[str]:
    text = page.read_text(encoding="utf-8")
    spoken = "\n".join([*_blocks(page, "sh"), *re.findall(r"`([^`\n]+)`", text)])
    return set(re.findall(r"\bpacs-ai ([a-z]+)", spoken))


@pytest.mark.parametrize("page", PAGES, ids=_names(PAGES))
def test_a_command_that_a_page_names_exists(page: Path) -> None:
    known = set(getattr(get_command(app), "commands"))  # noqa: B009 - a Group's, not every Command's
    assert _commands(page) <= known


def test_every_make_target_that_a_page_names_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        target
        for page in PAGES
        for target in re.findall(r"`(?:\w+=1 )?make ([a-z]+)", page.read_text(encoding="utf-8"))
    }
    assert {"demo", "test", "soak", "lock"} <= named <= targets


def test_every_option_that_an_example_uses_exists() -> None:
    commands = getattr(get_command(app), "commands")  # noqa: B009
    wrong = []
    for page in PAGES:
        for line in "\n".join(_blocks(page, "sh")).splitlines():
            found = re.search(r"\bpacs-ai ([a-z]+)(?: ([a-z]+))?(.*)", line.partition("#")[0])
            if found:
                command = commands[found[1]]
                command = getattr(command, "commands", {}).get(found[2], command)
                known = {option for one in command.params for option in one.opts}
                used = set(re.findall(r"(?<!\S)(--[a-z-]+)", found[3]))
                wrong += [f"{page.name}: {found[1]} {one}" for one in used - known]
    assert wrong == []


# ---------------------------------------------------------------------- links and pictures


@pytest.mark.parametrize("page", PAGES, ids=_names(PAGES))
def test_what_a_page_links_to_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = [one for one in re.findall(r"\]\(([^)]+)\)", text) if "://" not in one]
    missing = [one for one in targets if not (page.parent / one.partition("#")[0]).exists()]
    assert missing == []


def test_every_page_can_be_found_from_the_first() -> None:
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    lost = [page.name for page in DOCS.glob("*.md") if f"({page.name})" not in index]
    assert lost == ["README.md"]


def test_the_picture_is_small_and_whole() -> None:
    path = DOCS / "img" / "results-page.png"
    assert path.stat().st_size < 300_000
    with Image.open(path) as picture:
        picture.load()
        assert picture.width > 600


def test_the_hospital_file_names_a_page_that_is_there() -> None:
    for name in re.findall(r"docs/[a-z-]+\.md", (ROOT / "config/hospital.yaml").read_text()):
        assert (ROOT / name).is_file()
