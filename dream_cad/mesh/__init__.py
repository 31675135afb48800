"""Meshes: clean-up, simplification, UV atlas, baking, rendering and files."""
