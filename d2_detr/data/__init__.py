"""Datasets and what stands between them and the model. Importing this registers the balloon datasets."""

from d2_detr.data import balloon  # noqa: F401 - only registration
