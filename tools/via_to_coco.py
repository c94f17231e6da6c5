"""`d2_detr via-to-coco` in a clone: d2_detr/cli/via_to_coco.py has its options."""

from d2_detr.cli import run

if __name__ == "__main__":
    run("via-to-coco")
