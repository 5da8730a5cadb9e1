"""The built-in reference models: real image analysis behind the public contract of the real models.

They stand in where no model is configured: a demonstration, a test, a first installation. They find
what classical image analysis finds (lungs, bone and body on CT; lung fields, heart and dense
opacities on frontal chest radiographs; the breast on mammograms; descriptors for similarity), know
nothing else, and answer an unknown prompt with an empty mask. They are not for clinical use, and
every answer says that it is theirs.

The package speaks the wire and nothing more: it imports nothing of the gateway's own pixel path and
nothing of the client, or the contract tests would prove only that the two agree with each other.
"""
