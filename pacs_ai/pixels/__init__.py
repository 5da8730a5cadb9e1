"""Ground: source Instances to a display image or a Volume, and the way back to the native grid.

Read ``decode.py`` (stored values), ``display.py`` (projection images as they are displayed),
``placement.py`` (the square that a model sees), ``volume.py`` (slices to a Volume) and ``nifti.py``
(how a Volume travels). Whatever cannot be done without guessing is refused as a
:class:`~pacs_ai.errors.PixelError` that names the Instance, the element and the remedy.
"""
