"""Study × rules -> Jobs, with the reason of every yes and no.

Pure: no I/O, and nothing is evaluated as code. ``words.py``, ``ages.py`` and ``views.py`` read what
headers say; ``conditions.py`` tests it; ``parsing.py`` and ``rules.py`` make rules of the settings;
``selection.py`` picks the images; ``decisions.py`` puts it together.
"""

from pacs_ai.routing.decisions import Outcome, Refusal, Routing, Verdict, route
from pacs_ai.routing.explanation import explain_text
from pacs_ai.routing.pixels import Asking
from pacs_ai.routing.rules import Rule, Rules, parse

__all__ = [
    "Asking",
    "Outcome",
    "Refusal",
    "Routing",
    "Rule",
    "Rules",
    "Verdict",
    "explain_text",
    "parse",
    "route",
]
