"""``pacs-ai prototypes make``: from a site's labelled Studies to the file that names pictures.

The folder says what is what: ``FOLDER/view/frontal``, ``FOLDER/body/chest``, ``FOLDER/modality/CT``,
each with DICOM files below it. A Series of CT, MR or PET is one example, of other modalities each
Instance is.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

import typer

from pacs_ai import prototypes
from pacs_ai.cli.files import studies
from pacs_ai.cli.process import running_models
from pacs_ai.cli.serve import prepare
from pacs_ai.errors import ConfigError, Fault, PixelError
from pacs_ai.models import insight, likeness
from pacs_ai.models.likeness import Example
from pacs_ai.pixels.decoder import one_job
from pacs_ai.prototypes import ELEMENTS, VIEWS, Prototype
from pacs_ai.settings import Endpoint, Settings
from pacs_ai.study import Instance, Job, Study, values

_VOLUMES = frozenset({"CT", "MR", "PT"})


def make(folder: Path, settings: Settings, name: str | None, out: Path) -> int:
    """Embed every example, and write the prototypes of what there is enough of; 1 when there is not.

    Raises
    ------
    ConfigError
        When the folder is not of labels, or the settings leave open which endpoint is meant.
    """
    settings = _before(settings)
    endpoint = _endpoint(settings, name)
    labelled = _labelled(folder)
    prepare(settings)
    with running_models(settings), one_job():
        examples = {about: _examples(labels, endpoint) for about, labels in labelled.items()}
    missing = [
        f"{about}: {one}" for about, found in examples.items() for one in likeness.too_few(found)
    ]
    groups = {
        (about, recipe): labels
        for about, found in examples.items()
        if not missing
        for recipe, labels in likeness.learned(found).items()
    }
    if not missing and not groups:
        missing = ["nothing to tell apart: give two labels of pictures that are made the same way"]
    for sentence in missing:
        typer.echo(sentence, err=True)
    if missing:
        return 1
    headers = {about: likeness.spoken(about, found) for about, found in examples.items()}
    _write(out, prototypes.dumps(endpoint, groups, headers))
    for (about, recipe), labels in groups.items():
        for label, one in labels.items():
            typer.echo(f"{about} {label}: {_judged(one)} ({recipe})")
    typer.echo(f"prototypes of {endpoint.name} {endpoint.version} in {out}")
    return 0


def _before(settings: Settings) -> Settings:
    """Return settings without prototypes: those that they name are about to be made."""
    bare = {
        name: one.model_copy(update={"prototypes": None})
        for name, one in settings.endpoints.items()
    }
    return settings.model_copy(update={"endpoints": bare})


def _endpoint(settings: Settings, name: str | None) -> Endpoint:
    known = {key: one for key, one in settings.endpoints.items() if one.kind == "insight"}
    if name is None and len(known) == 1:
        return next(iter(known.values()))
    if name not in known:
        named = ", ".join(known) or "there is none in the settings"
        raise ConfigError([Fault(f"name one insight endpoint with --endpoint: {named}")])
    return known[name]


def _labelled(folder: Path) -> dict[str, dict[str, Path]]:
    """Return the folder of each label, by what is told apart."""
    found: dict[str, dict[str, Path]] = {}
    faults = []
    for about in sorted(one for one in folder.iterdir() if one.is_dir()):
        if about.name not in ELEMENTS:
            faults.append(
                Fault(f"{about} is none of {', '.join(ELEMENTS)}: rename it, or move it away")
            )
            continue
        found[about.name] = {one.name: one for one in sorted(about.iterdir()) if one.is_dir()}
        wrong = set(found[about.name]) - set(VIEWS) if about.name == "view" else ()
        faults += [
            Fault(f"{about / one} is no view: use {', '.join(VIEWS)}") for one in sorted(wrong)
        ]
    if not found and not faults:
        faults.append(
            Fault(f"{folder} has no folder {' or '.join(ELEMENTS)}: put labelled files there")
        )
    if faults:
        raise ConfigError(faults)
    return found


def _examples(labels: dict[str, Path], endpoint: Endpoint) -> list[Example]:
    made: list[Example] = []
    (about,) = {path.parent.name for path in labels.values()} or {"view"}
    for label, path in labels.items():
        found, refused = studies([path])
        for sentence in refused:
            typer.echo(f"{label}: {sentence}", err=True)
        for study in found:
            for job in _jobs(study, endpoint):
                header = job.instances[0].header
                try:
                    embedding = insight.embedding(job, endpoint)
                except PixelError as error:
                    typer.echo(f"{label}: left out: {error}", err=True)
                    continue
                said = " ".join(values(header, ELEMENTS[about]))
                made.append(Example(label, _patient(study), said, embedding))
    return made


def _jobs(study: Study, endpoint: Endpoint) -> Iterator[Job]:
    def job(role: str, instances: tuple[Instance, ...]) -> Job:
        return Job("prototypes", endpoint.name, endpoint.kind, {role: instances}, {})

    for series in study.series:
        if series.instances[0].Modality in _VOLUMES:
            yield job("volume", series.instances)
        else:
            yield from (job("image", (one,)) for one in series.instances)


def _patient(study: Study) -> str:
    """Return what tells patients apart while prototypes are made; it is not written anywhere."""
    known = [*values(study.header, "PatientID"), *values(study.header, "IssuerOfPatientID")]
    return "\\".join(known) or study.StudyInstanceUID


def _judged(one: Prototype) -> str:
    right = sum(judged for _, judged in one.leads)
    most = likeness.certainty_of(one, math.inf)
    return (
        f"pictures of {right} patients were given this name rightly, of {len(one.leads) - right} wrongly, "
        f"each judged without its patient; certainty at most {most:.3f}"
    )


def _write(out: Path, text: str) -> None:
    # Made from patients' images: for the gateway's own user alone.
    with os.fdopen(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
