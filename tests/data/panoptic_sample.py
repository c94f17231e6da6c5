"""A panoptic dataset of one image: its segment ids and its JSON content."""

import copy

import numpy as np

SKY, CAT, DOG = 70000, 300, 2  # segment ids: three, two and one byte of color
IDS = np.full((4, 6), SKY)
IDS[2:, :3], IDS[2:, 4:], IDS[3, 3] = CAT, DOG, 0


def segment(segment_id, category_id, **changes):
    """An entry of `segments_info` with the area and box of the pixels in IDS."""
    rows, columns = np.nonzero(segment_id == IDS)
    x, y = int(columns.min()), int(rows.min())
    bbox = [x, y, int(columns.max()) + 1 - x, int(rows.max()) + 1 - y]
    entry = {"id": segment_id, "category_id": category_id, "area": len(rows), "bbox": bbox, "iscrowd": 0}
    return entry | changes


def panoptic(**changes):
    """The content of the JSON file."""
    base = {
        "images": [{"id": 8, "file_name": "sub/a.jpg", "width": 6, "height": 4}],
        "annotations": [
            {
                "image_id": 8,
                "file_name": "a.png",
                "segments_info": [segment(SKY, 1), segment(CAT, 9), segment(DOG, 4, iscrowd=1)],
            }
        ],
        "categories": [
            {"id": 9, "name": "cat", "isthing": 1},
            {"id": 1, "name": "sky", "isthing": 0},
            {"id": 4, "name": "dog", "isthing": 1},
            {"id": 0, "name": "sea", "isthing": 0},
        ],
    }
    return copy.deepcopy(base | changes)
