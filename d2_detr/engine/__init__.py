"""Training: trainer, optimizer, processes, logs."""
