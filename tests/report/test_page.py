"""The report page: its contents and, if a browser is installed, its behavior."""

import re
import shutil
from collections import Counter

import numpy as np
import pytest

from d2_detr.evaluation.confusion import count_confusions
from d2_detr.evaluation.matching import Outcome, match_detections
from d2_detr.report.image_cards import make_image_card
from d2_detr.report.page import ConfusionTable, Report, Table, save_report
from d2_detr.structures.detections import Detections

NAMES = ("cat", "dog & <co>")
BOX = (10.0, 10, 30, 30)
ELSEWHERE = (60.0, 40, 80, 60)


def objects(*entries, scores=None, masks=False):
    boxes = np.array([box for box, _ in entries], float).reshape(-1, 4)
    drawn = np.zeros((len(entries), 80, 100), bool)
    for mask, (x0, y0, x1, y1) in zip(drawn, boxes.astype(int), strict=True):
        mask[y0:y1, x0:x1] = True
    classes = np.array([label for _, label in entries], int)
    return Detections(boxes, classes, None if scores is None else np.array(scores), drawn if masks else None)


def card(name, ground_truth, predictions, size_hw=(80, 100), names=NAMES):
    pixels, outcomes = np.full((*size_hw, 3), 200, np.uint8), match_detections(ground_truth, predictions)
    confusion = count_confusions(ground_truth, predictions, outcomes)
    return make_image_card(name, pixels, ground_truth, predictions, outcomes, confusion, names)


def no_predictions():
    return objects(scores=[])


IMAGES = {
    "missed.jpg": (objects((BOX, 0), (ELSEWHERE, 0)), no_predictions()),
    "background.jpg": (objects((BOX, 0)), objects((BOX, 0), (ELSEWHERE, 1), scores=[0.9, 0.8])),
    "right10.jpg": (objects((BOX, 1)), objects((BOX, 1), scores=[0.95])),
    "right9.jpg": (objects(), no_predictions()),
}


ROWS = [["all", 30.0], ["cat", 20.0], [NAMES[1], float("nan")], ["eel", 9.0]]
AP = Table("AP", ["class", "AP"], ROWS, bars=(1,))


@pytest.fixture
def page(tmp_path):
    report = Report(
        "DETR on <pets>", {"Data": {"folder": "a & b"}}, "predict 'my model'", "train again",
        training_curves=["<svg id='curve'></svg>"], dataset_name="custom_test", num_images=9, figures={"AP": 12.345},
        threshold=0.5, class_names=NAMES, image_cards=[card(name, *detections) for name, detections in IMAGES.items()],
        tables=[AP],
        confusion=ConfusionTable(list(enumerate(NAMES)), Counter({(0, 0): 1, (0, None): 2, (None, 1): 1}), len(NAMES)),
        score_curves=["<svg></svg>"], attention={"missed.jpg": "data:image/png;base64,AAAA"},
    )  # fmt: skip
    save_report(report, tmp_path / "report.html")
    return tmp_path / "report.html"


def test_the_page_is_self_contained_and_escapes_names(page):
    text = page.read_text()
    assert not re.search(r"(src|href)=\"(?!data:|#)", text) and "url(http" not in text and "@import" not in text
    assert "DETR on &lt;pets&gt;" in text and "dog &amp; &lt;co&gt;" in text and "<co>" not in text
    assert "predict &#39;my model&#39;" in text and "train again" in text
    assert "<svg id='curve'></svg>" in text


def test_the_page_names_the_evaluated_dataset(page):
    text = " ".join(page.read_text().split())
    assert "on the 9 images of custom_test" in text
    assert "the 4 images with the most errors, of 9 in custom_test" in text
    assert "validation" not in text


def test_an_empty_section_is_omitted(tmp_path):
    save_report(Report("DETR", {}), tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert re.findall(r"<section id=\"(\w+)\"", text) == ["summary"]
    assert 'class="command"' not in text


@pytest.mark.parametrize(
    ("best_f1", "text"),
    [(0.0, "There is no true positive at any"), (0.05, "There are hardly any true"), (0.8, "0.80, is reached")],
)
def test_the_page_says_whether_the_model_is_useful(tmp_path, best_f1, text):
    save_report(Report("", {}, best_f1=best_f1, score_curves=["<svg></svg>"]), tmp_path / "report.html")
    assert text in (tmp_path / "report.html").read_text()


def test_a_single_class_is_not_labeled_and_many_boxes_are_crowded():
    many = [((10.0 * i, 10, 10.0 * i + 8, 30), 0) for i in range(9)]
    image_card = card("a", objects(*many[:8]), objects(*many, scores=[0.5] * 9), names=("cat",))
    assert {box.label for box in image_card.ground_truth.boxes} == {""}
    assert {box.label for box in image_card.predictions.boxes} == {"0.50"}
    assert image_card.predictions.is_crowded and not image_card.ground_truth.is_crowded


def test_the_confusion_table_shows_counts_and_shares(tmp_path):
    counts = Counter({(0, 0): 3, (0, 1): 1, (0, 7): 4, (None, 1): 2, (7, 0): 5})
    report = Report("", {}, tables=[AP], confusion=ConfusionTable(list(enumerate(NAMES)), counts, 8))
    save_report(report, tmp_path / "report.html")
    text = re.sub(r"<button[^>]*>|</button>", "", (tmp_path / "report.html").read_text())
    assert re.search(r"class=\"true_positive\" style=\"--share: 38.0%\">3<", text)
    assert re.search(r"class=\"classification\" style=\"--share: 12.0%\">1<", text)
    assert re.search(r"class=\"background\" style=\"--share: 100.0%\">2<", text)
    assert ">5<" not in text, "the count of a class that is not in the table"
    assert re.search(rf"Of\s+8 classes, the table has the {len(NAMES)} with the most", text)


def test_a_classification_error_belongs_to_both_classes():
    image_card = card("a", objects((BOX, 0)), objects((BOX, 1), scores=[0.9]))
    assert image_card.outcomes == ["classification:0", "classification:1", "missed:0"]
    assert image_card.class_pairs == [(0, 1)]


def test_an_image_card_has_scaled_boxes_and_error_counts():
    image_card = card("a", *IMAGES["background.jpg"])
    assert (image_card.width, image_card.height) == (520, 416)  # from 100 x 80 pixels
    first, second = image_card.predictions.boxes
    assert (first.x, first.y, first.width, first.height) == (52, 52, 104, 104)
    assert (first.label, first.outcome) == ("cat 0.90", Outcome.TRUE_POSITIVE)
    assert (second.label, second.outcome) == ("dog & <co> 0.80", Outcome.BACKGROUND)
    assert image_card.counts == {Outcome.TRUE_POSITIVE: 1, Outcome.BACKGROUND: 1} and image_card.num_errors == 1
    assert image_card.outcomes == ["background:1", "true_positive:0"] and not image_card.ground_truth.masks


def test_large_images_are_downscaled_and_masks_are_drawn():
    image_card = card("a", objects((BOX, 0), masks=True), objects((BOX, 0), scores=[0.9], masks=True))
    assert image_card.ground_truth.masks.startswith("data:image/png;base64,")
    large = card("b", objects(), no_predictions(), size_hw=(2000, 4000))
    assert (large.width, large.height) == (520, 260) and len(large.image) < 5000


# ---- in a browser

BACKGROUND_TRAFFIC_OFF = (
    "disable-quic", "no-first-run", "disable-background-networking", "disable-component-update", "disable-sync",
)  # fmt: skip


def start_browser():
    """Start a browser that has a matching driver, or skip the test."""
    webdriver = pytest.importorskip("selenium.webdriver")
    errors = pytest.importorskip("selenium.common")
    binaries = [path for name in ("chromium", "google-chrome", "chrome") if (path := shutil.which(name))]
    driver = shutil.which("chromedriver")
    for path in binaries if driver else []:
        options = webdriver.ChromeOptions()
        options.binary_location = path
        for argument in ("headless=new", "no-sandbox", "disable-gpu", *BACKGROUND_TRAFFIC_OFF):
            options.add_argument(f"--{argument}")
        try:
            return webdriver.Chrome(options, webdriver.ChromeService(driver))
        except errors.WebDriverException as error:  # the driver is of another version
            print(error)
    pytest.skip(f"no browser with a matching driver; found {[*binaries, driver]}")


@pytest.fixture(scope="module")
def browser():
    driver = start_browser()
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser, page):
    browser.set_window_size(1200, 900)
    browser.get(page.as_uri())
    return browser


def find_all(browser, selector):
    return browser.find_elements("css selector", selector)


def visible_images(browser):
    return [card.get_attribute("data-name") for card in find_all(browser, ".image-card") if card.is_displayed()]


def choose(browser, control, text):
    select = browser.find_element("css selector", f"select[name={control}]")
    next(option for option in select.find_elements("tag name", "option") if option.text == text).click()


def test_images_are_filtered_by_class_and_error(opened):
    assert visible_images(opened) == ["missed.jpg", "background.jpg", "right10.jpg", "right9.jpg"]
    choose(opened, "outcome", "missed")
    assert visible_images(opened) == ["missed.jpg"]
    choose(opened, "class", NAMES[1])
    assert visible_images(opened) == []
    choose(opened, "outcome", "any error")
    assert visible_images(opened) == ["background.jpg"]
    choose(opened, "outcome", "no error")
    assert visible_images(opened) == ["right10.jpg"], "images without the class are hidden"
    choose(opened, "class", "all")
    assert visible_images(opened) == ["right10.jpg", "right9.jpg"]
    assert opened.find_element("css selector", ".controls output").text == "2 of 4 images"


def test_a_confusion_table_cell_filters_the_images(opened):
    cells = {cell.get_attribute("title"): cell for cell in find_all(opened, ".confusion button")}
    assert set(cells) == {"cat predicted as cat", "cat missed", f"background predicted as {NAMES[1]}"}
    choose(opened, "outcome", "no error")
    cells["cat missed"].click()
    assert visible_images(opened) == ["missed.jpg"], "other filters are reset"
    choose(opened, "class", NAMES[1])
    assert visible_images(opened) == []
    [reset] = find_all(opened, "button[name=pair]")
    assert reset.text.startswith("cat missed ")
    reset.click()
    assert visible_images(opened) == ["background.jpg", "right10.jpg"] and not reset.is_displayed()


def test_images_are_sorted_by_name_or_errors(opened):
    choose(opened, "sort", "by name")
    assert visible_images(opened) == ["background.jpg", "missed.jpg", "right9.jpg", "right10.jpg"]
    choose(opened, "sort", "fewest errors first")
    assert set(visible_images(opened)[:2]) == {"right9.jpg", "right10.jpg"}
    assert visible_images(opened)[-1] == "missed.jpg"


def test_sorting_a_table_keeps_its_first_row(opened):
    by_class, by_ap = find_all(opened, ".scores thead button")

    def names():
        return [cell.text for cell in find_all(opened, ".scores tbody th")]

    by_ap.click()
    assert names() == ["all", "cat", "eel", NAMES[1]]
    by_ap.click()
    assert names() == ["all", NAMES[1], "eel", "cat"]
    by_class.click()
    assert names() == ["all", "cat", NAMES[1], "eel"]


def test_next_in_the_enlarged_view_skips_hidden_images(opened):
    choose(opened, "outcome", "no error")
    opened.find_element("css selector", ".image-card[data-name='right10.jpg'] .overlays").click()
    dialog = opened.find_element("css selector", "dialog")
    title = dialog.find_element("css selector", "h3")
    assert dialog.is_displayed() and title.text == "right10.jpg"
    assert len(dialog.find_elements("css selector", ".box.true_positive")) == 2
    dialog.find_element("css selector", "[name=next]").click()
    assert title.text == "right9.jpg"
    dialog.find_element("css selector", "[name=next]").click()
    assert title.text == "right10.jpg"
    dialog.find_element("css selector", "[name=close]").click()
    assert not dialog.is_displayed()


@pytest.mark.parametrize("width", [500, 1200])
def test_the_page_is_not_wider_than_the_window(opened, width):
    opened.set_window_size(width, 900)
    assert opened.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")


def test_the_page_follows_the_color_scheme_of_the_system(opened):
    def background():
        return opened.execute_script("return getComputedStyle(document.body).backgroundColor")

    colors = set()
    for scheme in ("light", "dark"):
        feature = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", feature)
        colors.add(background())
    assert len(colors) == 2
