"""`d2_detr train` in a clone: d2_detr/cli/train.py has its options."""

from d2_detr.cli import run

if __name__ == "__main__":
    run("train")
