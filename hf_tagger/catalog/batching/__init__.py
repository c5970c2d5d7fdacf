"""Products in the batches that a model takes."""
