"""``python -m pacs_ai.cli``: how the supervisor starts each role with its own interpreter."""

from pacs_ai.cli import main

main()
