"""Ground: source Instances to a display image or a Volume, and the way back to the native grid.

Read ``decode.py`` (stored values; ``description.py`` checks the header, ``decoder.py`` keeps the
process in which ``child.py`` decodes), ``modality.py`` (modality values), ``display.py`` (a frame as
it is displayed), ``placement.py`` (the square that a model sees), ``volume.py`` (slices to a Volume)
and ``nifti.py`` (how a Volume travels). Whatever cannot be done without guessing is refused as a
:class:`~pacs_ai.errors.PixelError` that names the Instance, the element and the remedy.
"""
