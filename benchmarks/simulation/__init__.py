"""A cluster on paper: simulated clock, GPUs and jobs under the real rules of the scheduler."""
