"""The page of a report: what is in it, and that it works in a browser, where there is one."""

import re
import shutil
from collections import Counter

import numpy as np
import pytest

from d2_detr.evaluation.confusion import confusion
from d2_detr.evaluation.matching import Outcome, outcomes
from d2_detr.report.page import Confusion, Report, Table, make_sheet, save_report
from d2_detr.structures.detections import Detections

NAMES = ("cat", "dog & <co>")
BOX = (10.0, 10, 30, 30)
ELSEWHERE = (60.0, 40, 80, 60)
PIXELS = np.zeros((80, 100, 3), np.uint8)


def objects(*entries, scores=None, masks=False):
    boxes = np.array([box for box, _ in entries], float).reshape(-1, 4)
    drawn = np.zeros((len(entries), 80, 100), bool)
    for mask, (x0, y0, x1, y1) in zip(drawn, boxes.astype(int), strict=True):
        mask[y0:y1, x0:x1] = True
    classes = np.array([label for _, label in entries], int)
    return Detections(boxes, classes, None if scores is None else np.array(scores), drawn if masks else None)


def sheet(name, truth, predicted, size=(80, 100)):
    picture = np.full((*size, 3), 200, np.uint8)
    given = outcomes(truth, predicted)
    return make_sheet(name, picture, truth, predicted, given, confusion(truth, predicted, given), NAMES)


def nothing():
    return objects(scores=[])


SHEETS = {
    "missed.jpg": (objects((BOX, 0), (ELSEWHERE, 0)), nothing()),
    "false.jpg": (objects((BOX, 0)), objects((BOX, 0), (ELSEWHERE, 1), scores=[0.9, 0.8])),
    "right10.jpg": (objects((BOX, 1)), objects((BOX, 1), scores=[0.95])),
    "right9.jpg": (objects(), nothing()),
}


ROWS = [["all", 30.0], ["cat", 20.0], [NAMES[1], float("nan")], ["eel", 9.0]]
AP = Table("AP", ["class", "AP"], ROWS, bars=(1,))


@pytest.fixture
def page(tmp_path):
    report = Report(
        "DETR on <pets>", {"Data": {"folder": "a & b"}}, ["<svg id='curve'></svg>"], "my model.pth", "train again",
        figures={"AP": 12.345}, threshold=0.5, class_names=NAMES, num_pictures=9,
        sheets=[sheet(name, *sides) for name, sides in SHEETS.items()],
        tables=[AP], confusion=Confusion(list(enumerate(NAMES)), Counter({(0, 0): 1, (0, None): 2, (None, 1): 1})),
        score_curves=["<svg></svg>"], attention={"missed.jpg": "data:image/png;base64,AAAA"},
    )  # fmt: skip
    save_report(report, tmp_path / "report.html")
    return tmp_path / "report.html"


def test_the_page_needs_nothing_else_and_names_are_text_not_markup(page):
    text = page.read_text()
    assert not re.search(r"(src|href)=\"(?!data:|#)", text) and "url(http" not in text and "@import" not in text
    assert "DETR on &lt;pets&gt;" in text and "dog &amp; &lt;co&gt;" in text and "<co>" not in text
    assert "--weights &#39;my model.pth&#39; --input photos" in text and "--threshold 0.50" in text
    assert "<svg id='curve'></svg>" in text and "the 4 worst of" in text


def test_what_is_not_there_has_no_section(tmp_path):
    save_report(Report("DETR", {}, [], "model.pth", "train_net.py"), tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert re.findall(r"<section id=\"(\w+)\"", text) == ["summary"]
    assert "predict.py" not in text and "train_net.py" not in text


@pytest.mark.parametrize(
    ("best_f1", "said"), [(0.0, "Nothing is found at any"), (0.05, "Hardly anything is found"), (0.8, "0.80, has a")]
)
def test_a_model_that_has_learned_nothing_is_not_offered_for_use(tmp_path, best_f1, said):
    sheets = [sheet("a", *SHEETS["false.jpg"])]
    report = Report("", {}, [], "model.pth", "", best_f1=best_f1, sheets=sheets, score_curves=["<svg></svg>"])
    save_report(report, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert said in text and ("predict.py" in text) == (best_f1 == 0.8)


def test_the_name_of_the_only_class_is_no_label_and_a_crowded_picture_has_none_until_it_is_enlarged():
    many = [((10.0 * i, 10, 10.0 * i + 8, 30), 0) for i in range(9)]
    predicted = objects(*many, scores=[0.5] * 9)
    truth = objects(*many[:8])
    made = make_sheet("a", PIXELS, truth, predicted, outcomes(truth, predicted), (), ("cat",))
    assert {box.label for box in made.truth.boxes} == {""} and {box.label for box in made.predicted.boxes} == {"0.50"}
    assert made.predicted.is_crowded and not made.truth.is_crowded


def test_classes_that_are_taken_for_each_other_are_a_table(tmp_path):
    counts = Counter({(0, 0): 3, (0, 1): 1, (None, 1): 2, (7, 0): 5})
    report = Report("", {}, [], "", "", tables=[AP], confusion=Confusion(list(enumerate(NAMES)), counts))
    save_report(report, tmp_path / "report.html")
    text = re.sub(r"<button[^>]*>|</button>", "", (tmp_path / "report.html").read_text())
    assert re.search(r"class=\"right\" style=\"--share: 75.0%\">3<", text)
    assert re.search(r"class=\"wrong\" style=\"--share: 25.0%\">1<", text) and '100.0%">2<' in text
    assert ">5<" not in text, "of a class that is not shown"


def test_a_wrong_class_is_an_error_of_both_classes():
    made = sheet("a", objects((BOX, 0)), objects((BOX, 1), scores=[0.9]))
    assert made.marks == ["missed:0", "wrong_class:0", "wrong_class:1"] and made.taken == [(0, 1)]


def test_a_sheet_has_the_boxes_in_units_of_the_page_and_counts_the_mistakes():
    made = sheet("a", *SHEETS["false.jpg"])
    assert (made.width, made.height) == (520, 416)  # of 100 x 80 pixels
    first, second = made.predicted.boxes
    assert (first.x, first.y, first.width, first.height) == (52, 52, 104, 104)
    assert (first.label, first.outcome) == ("cat 0.90", Outcome.FOUND)
    assert (second.label, second.outcome) == ("dog & <co> 0.80", Outcome.FALSE)
    assert made.counts == {Outcome.FOUND: 1, Outcome.FALSE: 1} and made.num_mistakes == 1
    assert made.marks == ["false:1", "found:0"] and not made.truth.masks


def test_a_large_picture_becomes_small_and_masks_are_painted():
    truth = objects((BOX, 0), masks=True)
    made = sheet("a", truth, objects((BOX, 0), scores=[0.9], masks=True))
    assert made.truth.masks.startswith("data:image/png;base64,")
    pixels = np.zeros((2000, 4000, 3), np.uint8)
    large = make_sheet("b", pixels, objects(), nothing(), outcomes(objects(), nothing()), (), NAMES)
    assert (large.width, large.height) == (520, 260) and len(large.picture) < 5000


# ---- in a browser


def started():
    """A browser and a driver that go together, or a skip."""
    webdriver = pytest.importorskip("selenium.webdriver")
    errors = pytest.importorskip("selenium.common")
    found = [path for name in ("chromium", "google-chrome", "chrome") if (path := shutil.which(name))]
    driver = shutil.which("chromedriver")
    for path in found if driver else []:
        options = webdriver.ChromeOptions()
        options.binary_location = path
        for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-background-networking", "no-first-run"):
            options.add_argument(f"--{argument}")
        try:
            return webdriver.Chrome(options, webdriver.ChromeService(driver))
        except errors.WebDriverException as error:  # the driver is of another version
            print(error)
    pytest.skip(f"no browser with its driver; there are {[*found, driver]}")


@pytest.fixture(scope="module")
def browser():
    driver = started()
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser, page):
    browser.set_window_size(1200, 900)
    browser.get(page.as_uri())
    return browser


def all_of(browser, selector):
    return browser.find_elements("css selector", selector)


def shown(browser):
    return [sheet.get_attribute("data-name") for sheet in all_of(browser, ".sheet") if sheet.is_displayed()]


def choose(browser, control, text):
    select = browser.find_element("css selector", f"select[name={control}]")
    next(option for option in select.find_elements("tag name", "option") if option.text == text).click()


def test_the_gallery_is_filtered_by_class_and_error_together(opened):
    assert shown(opened) == ["missed.jpg", "false.jpg", "right10.jpg", "right9.jpg"]
    choose(opened, "outcome", "missed")
    assert shown(opened) == ["missed.jpg"]
    choose(opened, "class", NAMES[1])
    assert shown(opened) == []
    choose(opened, "outcome", "any error")
    assert shown(opened) == ["false.jpg"]
    choose(opened, "outcome", "no error")
    assert shown(opened) == ["right10.jpg"], "a picture without the class is not asked for"
    choose(opened, "class", "all")
    assert shown(opened) == ["right10.jpg", "right9.jpg"]
    assert opened.find_element("css selector", ".controls output").text == "2 of 4 pictures"


def test_a_figure_of_what_was_taken_for_what_shows_its_pictures(opened):
    cells = {cell.get_attribute("title"): cell for cell in all_of(opened, ".confusion button")}
    assert set(cells) == {"cat taken for cat", "cat taken for nothing", f"nothing taken for {NAMES[1]}"}
    choose(opened, "outcome", "no error")
    cells["cat taken for nothing"].click()
    assert shown(opened) == ["missed.jpg"], "whatever was chosen before"
    choose(opened, "class", NAMES[1])
    assert shown(opened) == []
    [all_again] = all_of(opened, "button[name=taken]")
    assert all_again.text.startswith("cat taken for nothing ")
    all_again.click()
    assert shown(opened) == ["false.jpg", "right10.jpg"] and not all_again.is_displayed()


def test_the_gallery_is_sorted(opened):
    choose(opened, "sort", "by name")
    assert shown(opened) == ["false.jpg", "missed.jpg", "right9.jpg", "right10.jpg"]
    choose(opened, "sort", "best first")
    assert set(shown(opened)[:2]) == {"right9.jpg", "right10.jpg"} and shown(opened)[-1] == "missed.jpg"


def test_a_table_is_sorted_by_a_column_below_its_first_row(opened):
    by_class, by_ap = all_of(opened, ".scores thead button")

    def names():
        return [cell.text for cell in all_of(opened, ".scores tbody th")]

    by_ap.click()
    assert names() == ["all", "cat", "eel", NAMES[1]]
    by_ap.click()
    assert names() == ["all", NAMES[1], "eel", "cat"]
    by_class.click()
    assert names() == ["all", "cat", NAMES[1], "eel"]


def test_a_picture_is_enlarged_and_the_next_one_is_among_those_shown(opened):
    choose(opened, "outcome", "no error")
    opened.find_element("css selector", ".sheet[data-name='right10.jpg'] .pair").click()
    dialog = opened.find_element("css selector", "dialog")
    title = dialog.find_element("css selector", "h3")
    assert dialog.is_displayed() and title.text == "right10.jpg"
    assert len(dialog.find_elements("css selector", ".box.found")) == 2
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


def test_dark_where_the_system_is_dark(opened):
    def background():
        return opened.execute_script("return getComputedStyle(document.body).backgroundColor")

    colours = set()
    for scheme in ("light", "dark"):
        feature = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", feature)
        colours.add(background())
    assert len(colours) == 2
