"""Generate a mesh for every row of a file, on one machine or a cluster."""
