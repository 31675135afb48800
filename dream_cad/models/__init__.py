"""The models: their base class, the table of all of them, and the factory."""
