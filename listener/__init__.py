"""The DICOM face: the AE that a PACS or modality sends to."""
