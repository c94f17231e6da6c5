"""Find, register and read datasets by name or folder."""

from d2_detr.data.datasets.custom import register_custom
from d2_detr.data.datasets.loading import load_dataset, load_datasets, register_dataset

__all__ = ["load_dataset", "load_datasets", "register_custom", "register_dataset"]
