"""Runnable comparisons; results with machine, commit and versions in results/."""
