"""The recipe of the nano checkpoints: procedural objects, renders, training and measurement."""
