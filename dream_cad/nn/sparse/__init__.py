"""Sparse voxel tensors: submanifold convolution, resampling and attention, nothing compiled."""
