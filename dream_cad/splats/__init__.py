"""Gaussian splats: the record, files, and the way to a mesh. Knows no model."""
