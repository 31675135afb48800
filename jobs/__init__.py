"""Programs that run over a cluster or a dataset: training and, later, batches."""
