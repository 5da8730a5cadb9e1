"""PACS AI: the gateway that puts foundation models to work inside a hospital's PACS.

Start reading in :mod:`pacs_ai.gateway`: seven short methods, one for each step a Study takes.
"""

__version__ = "0.1.0"
