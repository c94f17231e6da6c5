"""The config: its keys, and how it is loaded."""

from d2_detr.config.keys import add_detr_config, config_path, configs_folder

__all__ = ["add_detr_config", "config_path", "configs_folder"]
