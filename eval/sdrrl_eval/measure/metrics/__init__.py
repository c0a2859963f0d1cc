"""Thin metrics: a value, its 95% interval, and the signature that makes it reproducible."""
