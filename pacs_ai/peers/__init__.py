"""Asking a PACS: associations, C-ECHO, and later queries.

Ground: knows DICOM and the network, nothing of Studies, results or the ledger.
"""
