"""Annotation files: COCO, COCO panoptic, VIA."""
