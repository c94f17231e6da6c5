"""`d2_detr split` in a clone: d2_detr/cli/split.py has its options."""

from d2_detr.cli import run

if __name__ == "__main__":
    run("split")
