"""`d2_detr visualize` in a clone: d2_detr/cli/visualize.py has its options."""

from d2_detr.cli import run

if __name__ == "__main__":
    run("visualize")
