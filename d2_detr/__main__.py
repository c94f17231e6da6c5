"""`python -m d2_detr COMMAND` does the same as `d2_detr COMMAND`."""

from d2_detr.cli import main

if __name__ == "__main__":
    main()
