"""From an implicit field to a triangle mesh: dense reference and sparse hierarchical path."""
