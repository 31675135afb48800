"""Hunyuan3D-Paint v2-0 and v2-0-turbo: one RGB texture for a mesh, from pictures of the object.

Importing this package does not import torch.
"""
