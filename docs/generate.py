"""Fills the tables of the reference pages from the code: ``python docs/generate.py`` writes them anew.

A page holds its prose; what stands between ``<!-- generated: NAME -->`` and ``<!-- end -->`` is made here.
A test compares the pages with what this makes.
"""

from __future__ import annotations

import ast
import inspect
import re
import ssl
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from enum import Enum
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from pydicom.datadict import dictionary_VR
from pydicom.uid import UID

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))

from listener import ae, handlers  # noqa: E402 - found beside this folder
from listener.door import HANDSHAKE, Limits  # noqa: E402
from pacs_ai import catalogue, certificates, encoding, intake, settings  # noqa: E402
from pacs_ai.cli import sheet  # noqa: E402
from pacs_ai.delivery import storage, wanted  # noqa: E402
from pacs_ai.encoding.equipment import FIRST_SERIES_NUMBER  # noqa: E402
from pacs_ai.ledger.rows import TRANSITIONS  # noqa: E402
from pacs_ai.ledger.views import StudyState  # noqa: E402
from pacs_ai.peers.association import TIMEOUTS  # noqa: E402
from pacs_ai.pixels import decoder, description  # noqa: E402
from pacs_ai.web import app, file_meta, multipart, search, storing  # noqa: E402
from pacs_ai.web.guard import Guard  # noqa: E402
from pacs_ai.web.store import Store  # noqa: E402

PAGES = ("conformance.md", "pixel-data.md", "prompts.md", "settings.md", "states.md")
_BLOCK = re.compile(r"(<!-- generated: (?P<name>[a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def render(text: str) -> str:
    """Return a page with every generated part made anew."""
    return _BLOCK.sub(lambda found: f"{found[1]}\n{PARTS[found['name']]()}\n\n{found[3]}", text)


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines
    )


# ---------------------------------------------------------------------- what is received


def _entity() -> Any:
    only = SimpleNamespace(settings=SimpleNamespace(listener=settings.Listener()))
    return ae.build(cast("Any", only))


def storage_classes() -> str:
    """SOP Classes that the listener accepts."""
    return table(("SOP Class", "UID"), sheet.accepted_classes())


def transfer_syntaxes() -> str:
    """Transfer syntaxes that the listener accepts, and whether their pixels are read."""
    read = description.CODECS
    return table(
        ("Transfer Syntax", "UID", "pixel data"),
        (
            (UID(one).name, one, "read" if one in read else "stored; refused by name at the models")
            for one in ae.TRANSFER_SYNTAXES
        ),
    )


def decoders() -> str:
    """Transfer syntaxes whose pixel data is read, and by what."""
    return table(
        ("Transfer Syntax", "UID", "decoded by"),
        ((UID(one).name, one, codec.value) for one, codec in description.CODECS.items()),
    )


def photometric_interpretations() -> str:
    """Photometric Interpretations that are read."""
    return table(
        ("PhotometricInterpretation", "SamplesPerPixel"), sorted(description.SAMPLES.items())
    )


def decoder_limits() -> str:
    """Numbers of the decoder child."""
    limits = decoder.Limits()
    return table(
        ("limit", "value"),
        (
            ("one decoded frame", f"{description.FRAME_LIMIT // 2**20} MiB"),
            ("all frames of one Instance", _size(description.INSTANCE_LIMIT)),
            ("memory of the decoder", _size(limits.memory)),
            ("processor time for one Instance, clock for one frame", f"{limits.seconds} s"),
            ("frames until a fresh decoder takes over", str(limits.frames)),
        ),
    )


def listener_limits() -> str:
    """Numbers of the listener."""
    entity, ours = _entity(), settings.Listener()
    door = Limits(connections=1, associations=1, per_address=1)
    return table(
        ("what", "value"),
        (
            ("maximum PDU size", f"{entity.maximum_pdu_size} bytes"),
            ("longest A-ASSOCIATE-RQ", f"{_size(door.request)}"),
            ("associations at once", f"{ours.maximum_associations} (setting)"),
            ("of these from one address, in each process", f"{ours.maximum_per_address} (setting)"),
            ("connections, from accept", f"{ours.maximum_connections} (setting)"),
            ("a TLS handshake", f"{HANDSHAKE:g} s"),
            ("pause within a PDU", f"{door.idle:g} s"),
            ("a whole PDU, read or written", f"{door.whole:g} s"),
            ("largest Instance", f"{_size(ours.maximum_object)} (setting)"),
            ("ACSE time-out", f"{entity.acse_timeout} s"),
            ("DIMSE time-out", f"{entity.dimse_timeout} s"),
            ("network time-out", f"{entity.network_timeout} s"),
        ),
    )


def cipher_suites() -> str:
    """Cipher suites of TLS, as the faces and the gateway as a client offer them."""
    offered = certificates._context(ssl.PROTOCOL_TLS_CLIENT).get_ciphers()
    return table(
        ("TLS", "cipher suite, as OpenSSL names it"),
        (
            (version, ", ".join(sorted(one["name"] for one in offered if one["protocol"] == name)))
            for version, name in (("1.3", "TLSv1.3"), ("1.2", "TLSv1.2"))
        ),
    )


def store_statuses() -> str:
    """Statuses of the listener's C-STORE answers, read from the calls that make them."""
    found: dict[int, set[str]] = {handlers.SUCCESS: {"stored durably, or held already"}}
    for module, function, place in ((intake, "Refused", 1), (handlers, "_status", 0)):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
                continue
            if node.func.id != function or len(node.args) != 2:
                continue
            named, words = node.args[place], node.args[1 - place]
            if isinstance(named, ast.Name):
                status = getattr(module, named.id, None)
                if isinstance(status, int) and isinstance(words, ast.Constant):
                    found.setdefault(status, set()).add(str(words.value))
    unreadable = {
        "the head of the data set cannot be read",
        "one of its UIDs is missing or not a UID",
    }
    found.setdefault(intake.UNREADABLE, set()).update(unreadable)
    return table(
        ("Status", "when"),
        ((f"0x{code:04X}", "; ".join(sorted(words))) for code, words in sorted(found.items())),
    )


# ---------------------------------------------------------------------- what is made and sent


def result_kinds() -> str:
    """Kinds of SOP Instance that are written, each as the library's class and our code name it."""
    return table(
        ("kind", "SOP Class", "UID", "Modality", "Series Number", "profile basic", "profile all"),
        (
            (
                kind,
                UID(row.sop_class_uid).name,
                row.sop_class_uid,
                row.modality,
                f"{FIRST_SERIES_NUMBER + place} + 10 n" if not row.once_a_study else 9001 + place,
                _goes(kind, settings.Profile.BASIC),
                _goes(kind, settings.Profile.ALL),
            )
            for place, (kind, row) in enumerate(encoding.ENCODERS.items())
        ),
    )


def _goes(kind: str, profile: settings.Profile) -> str:
    flat, volume = (
        wanted(kind, volumetric=volumetric, profile=profile, narrative=False)
        for volumetric in (False, True)
    )
    released = wanted(kind, volumetric=False, profile=profile, narrative=True)
    if flat and volume:
        return "yes"
    if volume:
        return "on volumes"
    return "where released" if released else "no"


def answers() -> str:
    """What the gateway makes of the statuses that a destination answers."""
    read = ((code, *storage.read_status(code)) for code in range(0x10000))
    bare = ((code, answer, re.sub(r" \(0x\w+\)$", "", words)) for code, answer, words in read)
    other = storage.read_status(0x0002)[1].removesuffix(" (0x0002)")
    rows = []
    for (answer, words), group in groupby(bare, key=lambda one: one[1:]):
        codes = [code for code, _, _ in group]
        if words == other:
            continue
        span = f"0x{codes[0]:04X}" + (f" to 0x{codes[-1]:04X}" if len(codes) > 1 else "")
        rows.append((span, answer, words or "stored"))
    return table(("Status", "taken as", "meaning"), [*rows, ("any other", "refused", other)])


def sender_limits() -> str:
    """Time-outs of the gateway as a Service Class User."""
    return table(
        ("waiting for", "seconds"),
        ((name, f"{getattr(TIMEOUTS, name):g}") for name in TIMEOUTS.__slots__),
    )


# ---------------------------------------------------------------------- the web face


def web_resources() -> str:
    """Resources of the HTTP face."""
    nothing = cast("Any", None)
    guard = Guard(nothing, settings.Reading.OPEN)
    routes = cast("Any", app.create_app(nothing, guard, Store(nothing, guard, nothing)).routes)
    return table(
        ("method", "resource", "what"),
        (
            (
                ", ".join(sorted(route.methods - {"HEAD"})),
                f"`{route.path}`",
                inspect.getdoc(route.endpoint),
            )
            for route in routes
        ),
    )


def failure_reasons() -> str:
    """Failure Reasons of STOW-RS, read from the calls that make them."""
    found: dict[int, set[str]] = {}
    for module, function in ((intake, "Refused"), (file_meta, "FileMetaError"), (storing, "_fail")):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if not isinstance(node, ast.Call):
                continue
            if getattr(node.func, "id", getattr(node.func, "attr", "")) != function:
                continue
            named = [*node.args[1:], *(one.value for one in node.keywords if one.arg == "status")]
            status = getattr(module, named[0].id, None) if isinstance(named[0], ast.Name) else None
            if isinstance(status, int) and isinstance(node.args[0], ast.Constant):
                found.setdefault(status, set()).add(str(node.args[0].value))
    found[storing.UNREADABLE].add(f"a part that is not {multipart.DICOM}")
    return table(
        ("Failure Reason", "when"),
        ((f"{status:04X}H", "; ".join(sorted(when))) for status, when in sorted(found.items())),
    )


def search_keys() -> str:
    """Keys that a search for Workitems takes."""
    return table(
        ("key", "VR"), ((f"`{'.'.join(one)}`", dictionary_VR(one[-1])) for one in search._KEYS)
    )


# ---------------------------------------------------------------------- states


def study_states() -> str:
    """States of a Study, from the docstring that lists them."""
    names = re.findall(r"``(\w+)``", inspect.getdoc(StudyState) or "")[1:]
    return table(("state", "means"), ((f"`{name}`", _STATES[name]) for name in names))


_STATES = {
    "receiving": "Instances have come; the quiet period is not over.",
    "running": "Complete, and something of it is under way; the reason says what.",
    "done": "Every Job has ended, and results are there.",
    "nothing_found": "Every Job has ended and at least one model flagged nothing. Not a normal result.",
    "not_suitable": "A rule or model wanted it and could not take it; the reason says what to mend.",
    "held": "A person must look before anything goes on.",
    "failed": "Something did not work for good, or its deadline is over.",
    "not_current": "Too old, undated or dated ahead: stored, and nothing is started.",
    "no_rule": "No rule took it; the reason says for every rule which condition said no.",
    "derived_only": "Only results and other derived Instances of it came.",
}


def work_moves() -> str:
    """Moves that a row of work may make."""
    return table(
        ("from", "to"),
        (
            (f"`{state}`", ", ".join(f"`{one}`" for one in sorted(goals)) or "(the end)")
            for state, goals in TRANSITIONS.items()
        ),
    )


# ---------------------------------------------------------------------- settings


def all_settings() -> str:
    """Every setting by section, with type, default and meaning."""
    sections: list[tuple[str, type[BaseModel]]] = [
        ("(top level)", settings.Settings),
        ("site", settings.Site),
        ("listener", settings.Listener),
        ("web", settings.Web),
        ("peers.NAME", settings.Peer),
        ("peers.NAME.tls and destinations.NAME.tls", settings.ClientTLS),
        ("endpoints.NAME", settings.Endpoint),
        ("endpoints.NAME.window", settings.Window),
        ("endpoints.NAME.prototypes", settings.Prototypes),
        ("destinations.NAME with kind: folder", settings.FolderDestination),
        ("destinations.NAME with kind: dicom", settings.DicomDestination),
        ("defaults", settings.Defaults),
        ("retention", settings.Retention),
        ("work", settings.WorkTimes),
    ]
    return "\n\n".join(f"## {title}\n\n{_section(model)}" for title, model in sections)


def _section(model: type[BaseModel]) -> str:
    written, meanings = _declared(model)
    # What a destination and a peer have in common is explained once, at the peer.
    known = {name: _declared(settings.Peer)[1][name] for name in ("profile", "narrative")}
    rows = [
        (
            f"`{name}`",
            _kind(written[name], info.annotation),
            _default(name, info),
            meanings.get(name) or _about(info.annotation) or known.get(name, ""),
        )
        for name, info in model.model_fields.items()
    ]
    return f"{inspect.getdoc(model)}\n\n" + table(("name", "type", "default", "meaning"), rows)


def _declared(model: type[BaseModel]) -> tuple[dict[str, str], dict[str, str]]:
    """Return type and docstring of each field, as the source has them, inherited ones too."""
    types: dict[str, str] = {}
    meanings: dict[str, str] = {}
    for one in reversed(model.__mro__):
        if issubclass(one, BaseModel) and one is not BaseModel:
            written, meant = _written(one)
            types |= written
            meanings |= meant
    return types, meanings


def _written(model: type[BaseModel]) -> tuple[dict[str, str], dict[str, str]]:
    (body,) = ast.parse(inspect.getsource(model)).body
    assert isinstance(body, ast.ClassDef)  # noqa: S101 - the source of a class
    types, meanings = {}, {}
    for node, after in zip(body.body, [*body.body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            types[node.target.id] = ast.unparse(node.annotation)
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                meanings[node.target.id] = str(after.value.value).replace("``", "`")
    return types, meanings


_WORDS = {
    "AETitle": "AE title",
    "CertificateIdentity": "certificate",
    "ClientTLS": "section",
    "Networks": "list of addresses",
    "Prototypes": "section",
    "ServedURL": "URL",
    "Window": "section",
    "DurationOrOff": "duration or off",
    "DurationOrNever": "duration or never",
    "Duration": "duration",
    "Size": "size",
    "Host": "address or DNS name",
    "Port": "port number",
    "Secret": "file:PATH or env:NAME",
    "Path": "path",
    "str": "text",
    "int": "number",
    "float": "number",
    "bool": "true or false",
    "| None": "",
}


def prompts() -> str:
    """Every prompt of the catalogue, by model, modality and site."""
    known = catalogue.dicom_modalities()
    rows = []
    for (model, modality, site, window), found in groupby(
        catalogue.prompts(), lambda one: (one.model, one.modality, one.site, one.window)
    ):
        dicom = ", ".join(name for name, keys in known.items() if modality in keys)
        hounsfield = f"W {window.width:g} L {window.level:g}" if window else ""
        labels = "; ".join(_prompt(one) for one in found)
        rows.append((model, dicom, f"{site} {modality}", hounsfield, labels))
    return table(("model", "Modality", "asked as ... in", "CT window", "labels"), rows)


def _prompt(row: catalogue.Prompt) -> str:
    star = "*" if row.kind is catalogue.Kind.LESION else ""
    words = "" if row.label == row.target else f" (asked as *{row.target}*)"
    count = f" ({row.count})" if row.count else ""
    figure = "" if row.dice is None else f" {row.dice:.3f}{count}"
    return f"`{row.label}`{star}{words}{figure}{', reference models only' if row.reference else ''}"


def _about(kind: Any) -> str:
    section = isinstance(kind, type) and issubclass(kind, BaseModel)
    return (inspect.getdoc(kind) or "").splitlines()[0] if section else ""


def _kind(written: str, kind: Any) -> str:
    """Return a type in the words of a settings file."""
    if isinstance(kind, type) and issubclass(kind, Enum):
        return " or ".join(f"`{one.value}`" for one in kind)
    if isinstance(kind, type) and issubclass(kind, BaseModel) and kind is not settings.Secret:
        return "section"
    text = re.sub(r"tuple\[(\w+), \.\.\.\]", r"list of \1", written)
    text = re.sub(r"Mapping\[str, Duration\]", "Duration by Modality", text)
    text = re.sub(r"Mapping\[str, \w+\]", "sections by name", text)
    text = re.sub(r"Literal\[([^]]*)\]", lambda found: _choices(found[1]), text)
    for name, words in _WORDS.items():
        text = re.sub(rf"(?<![\w`]){re.escape(name)}(?![\w`])", words, text)
    return text.replace(" | ", " or ").strip()


def _choices(listed: str) -> str:
    return " or ".join(f"`{one.strip(' ' + chr(39))}`" for one in listed.split(","))


def _default(name: str, info: Any) -> str:
    if info.is_required():
        return "**required**"
    value = info.get_default(call_default_factory=True)
    if value is PydanticUndefined or isinstance(value, BaseModel):
        return "see below"
    return _shown(name, value)


def _shown(name: str, value: Any) -> str:
    match value:
        case None:
            text = "off" if name == "max_age" else ""
        case dict():
            return ", ".join(f"{key} {_shown(name, one)}" for key, one in value.items())
        case tuple():
            return ", ".join(_shown(name, one) for one in value)
        case timedelta():
            text = _duration(value)
        case Enum():
            text = str(value.value)
        case bool():
            text = str(value).lower()
        case int() if value >= 10**6:
            text = _size(value)
        case _:
            text = str(value)
    return f"`{text}`" if text else ""


def _duration(value: timedelta) -> str:
    seconds = value.total_seconds()
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length and seconds % length == 0 and (unit != "d" or seconds > 2 * length):
            return f"{seconds / length:g}{unit}"
    return f"{seconds:g}s"


def _size(value: int) -> str:
    for unit, length in (("GiB", 2**30), ("MB", 10**6), ("KiB", 2**10)):
        if value % length == 0:
            return f"{value // length}{unit}"
    return f"{value}B"


PARTS: dict[str, Callable[[], str]] = {
    "storage-classes": storage_classes,
    "transfer-syntaxes": transfer_syntaxes,
    "decoders": decoders,
    "photometric-interpretations": photometric_interpretations,
    "decoder-limits": decoder_limits,
    "listener-limits": listener_limits,
    "store-statuses": store_statuses,
    "cipher-suites": cipher_suites,
    "result-kinds": result_kinds,
    "answers": answers,
    "sender-limits": sender_limits,
    "web-resources": web_resources,
    "failure-reasons": failure_reasons,
    "search-keys": search_keys,
    "study-states": study_states,
    "work-moves": work_moves,
    "prompts": prompts,
    "settings": all_settings,
}

if __name__ == "__main__":
    for page in PAGES:
        path = DOCS / page
        path.write_text(render(path.read_text(encoding="utf-8")), encoding="utf-8")
