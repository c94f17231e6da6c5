"""Checkpoints of DETR: layouts, conversion, reading, writing, and adapting them to a model."""
