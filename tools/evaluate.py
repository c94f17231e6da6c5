"""`d2_detr evaluate` in a clone: d2_detr/cli/evaluate.py has its options."""

from d2_detr.cli import run

if __name__ == "__main__":
    run("evaluate")
