"""Hunyuan3D-2mini: one or several pictures to a mesh by flow matching on a set of latents."""
