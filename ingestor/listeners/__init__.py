"""Listeners: a protocol's shell around parsers and the write path. HTTP is `http.py`."""
