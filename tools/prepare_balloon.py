"""`d2_detr prepare-balloon` in a clone: d2_detr/cli/prepare_balloon.py has its options."""

from d2_detr.cli import run

if __name__ == "__main__":
    run("prepare-balloon")
