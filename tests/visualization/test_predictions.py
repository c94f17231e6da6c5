import numpy as np
from PIL import Image

from d2_detr.visualization.predictions import COLOURS, Comparison, Objects, save_comparisons

BOX = np.array([[10.0, 20.0, 60.0, 70.0]])


def comparison(scores):
    picture = np.full((100, 80, 3), 255, np.uint8)
    predicted = Objects(np.repeat(BOX, len(scores), 0), np.zeros(len(scores), int), np.array(scores))
    return Comparison("cat.jpg", picture, Objects(BOX, np.array([1])), predicted)


def test_the_threshold_keeps_what_scores_above_it():
    objects = comparison([0.2, 0.7, 0.9]).predicted.above(0.7)
    assert objects.scores.tolist() == [0.9] and objects.boxes_xyxy.shape == (1, 4) and objects.classes.tolist() == [0]


def test_truth_and_prediction_are_drawn_beside_each_other_in_the_colours_of_their_classes(tmp_path):
    save_comparisons([comparison([0.9])], ["cat", "dog"], tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as image:
        left, right = (
            {"#{:02x}{:02x}{:02x}".format(*rgb) for _, rgb in image.convert("RGB").crop(half).getcolors(1 << 24)}
            for half in ((0, 0, image.width // 2, image.height), (image.width // 2, 0, image.width, image.height))
        )
    assert COLOURS[1] in left and COLOURS[0] not in left
    assert COLOURS[0] in right and COLOURS[1] not in right


def test_pictures_without_objects_and_incomplete_rows_are_drawn(tmp_path):
    save_comparisons([comparison([])] * 4, ["cat", "dog"], tmp_path / "out.png", columns=3)
    assert (tmp_path / "out.png").is_file()
