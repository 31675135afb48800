"""TripoSR: one image to a mesh through a triplane, in one forward pass."""
