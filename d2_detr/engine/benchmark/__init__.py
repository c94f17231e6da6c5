"""The judge of speed: this project beside other implementations of DETR, on the same model, images and losses."""
