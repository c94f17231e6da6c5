"""`d2_detr check` in a clone: d2_detr/cli/check.py has its options."""

from d2_detr.cli import run

if __name__ == "__main__":
    run("check")
