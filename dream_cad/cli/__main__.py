"""``python -m dream_cad.cli`` is the command ``dream-cad``."""

from dream_cad.cli import main

main()
