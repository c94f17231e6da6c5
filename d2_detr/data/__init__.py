"""Data: annotation formats, datasets, validation, and the mapper from a record to the model's input."""
