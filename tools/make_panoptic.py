"""`d2_detr make-panoptic` in a clone: d2_detr/cli/make_panoptic.py has its options."""

from d2_detr.cli import run

if __name__ == "__main__":
    run("make-panoptic")
