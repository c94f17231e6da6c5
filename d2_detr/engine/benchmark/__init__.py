"""Speed and memory of this project beside other implementations of DETR: same model, images and losses."""
