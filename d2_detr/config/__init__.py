"""The config: its keys, how it is loaded, and what is computed from it and the data."""

from d2_detr.config.keys import add_detr_config
from d2_detr.config.loading import config_path, configs_folder, load_config, merge_options
from d2_detr.config.resolving import resolve_config

__all__ = ["add_detr_config", "config_path", "configs_folder", "load_config", "merge_options", "resolve_config"]
