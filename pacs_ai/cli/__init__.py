"""The command line: one command for each thing a person asks of the gateway.

Exit codes: 0 done (nothing found and not suitable are done), 1 some work failed or was refused (said
which and why), 2 wrong use or settings.
"""

from __future__ import annotations

import sys

# pydicom imports GDCM wherever it finds it. It is C code that meets bytes from outside, so no role
# has it: only the decoder child, which does not come this way.
sys.modules.setdefault("gdcm", None)  # type: ignore[arg-type]

from pacs_ai.cli.commands import app  # noqa: E402
from pacs_ai.errors import ConfigError, PacsAiError, unusable  # noqa: E402


def main() -> None:
    """Run the command line; errors of ours are told in a sentence, never as a traceback."""
    try:
        app()
    except ConfigError as error:
        for fault in error.faults:
            print(fault, file=sys.stderr)  # noqa: T201 - the last word of the command line
        sys.exit(2)
    except PacsAiError as error:
        print(error, file=sys.stderr)  # noqa: T201
        sys.exit(1)
    except OSError as error:
        if error.filename is None:
            raise
        print(unusable(error), file=sys.stderr)  # noqa: T201
        sys.exit(1)
