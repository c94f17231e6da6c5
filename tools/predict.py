"""`d2_detr predict` in a clone: d2_detr/cli/predict.py has its options."""

from d2_detr.cli import run

if __name__ == "__main__":
    run("predict")
