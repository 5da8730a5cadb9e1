"""The HTTP face: Workitems by UPS-RS (PS3.18 11), health and the state of Studies; read-only."""
