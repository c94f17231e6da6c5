"""Helpers that need neither torch nor detectron2."""
