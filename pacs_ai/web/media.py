"""Which media type an answer is given in (PS3.18 8.7.4)."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request

DICOM_JSON = "application/dicom+json"
OFFERED = (DICOM_JSON, "application/json")


def negotiated(request: Request) -> str:
    """Return the media type to answer in (PS3.18 8.7.4), DICOM JSON where the client takes both.

    Raises
    ------
    HTTPException
        406 when the client takes neither, DICOM XML for instance.
    """
    ranges = [
        one
        for text in (
            # A plus sign that was not escaped in a URL arrives as a space.
            *(value.replace(" ", "+") for value in request.query_params.getlist("accept")),
            *request.headers.getlist("accept"),
        )
        for one in text.split(",")
        if one.strip()
    ]
    acceptable = {
        media.strip().lower()
        for media, *parameters in (one.split(";") for one in ranges)
        if not any(_is_zero(parameter) for parameter in parameters)
    }
    for offered in OFFERED:
        if not ranges or acceptable & {offered, "application/*", "*/*"}:
            return offered
    raise HTTPException(406, f"answers are offered as {' and '.join(OFFERED)}")


def _is_zero(parameter: str) -> bool:
    name, _, value = parameter.partition("=")
    try:
        return name.strip().lower() == "q" and float(value) == 0
    except ValueError:
        return False
