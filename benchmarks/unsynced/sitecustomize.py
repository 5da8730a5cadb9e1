"""Lets the listener write through the page cache: past it, a write waits for the disk as a sync does.

Python imports this before anything else in every process that has this folder in its path (module ``site``).
"""

import sys

from pacs_ai import spool

spool.DIRECT = sys.maxsize
