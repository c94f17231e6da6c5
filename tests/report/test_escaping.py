"""Names in the report are text, whatever they contain."""

import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure

from d2_detr.report import page as page_module
from d2_detr.report.page import ConfusionTable, Report, Table, save_report
from d2_detr.visualization.figures import page_style, svg
from d2_detr.visualization.score_curves import plot_precision_recall
from tests.report.test_page import BOX, card, objects

HOSTILE = [
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "javascript:alert(1)",
    "--><svg onload=alert(1)>",
    "]]><style>*{}</style>",
    "{{ 7 * 7 }}{% raw %}",
    r"$\frac$ \udc80 &lt;b&gt;",
    "cut\udcff\x00\x1b[31m",
]


class Elements(HTMLParser):
    """Collects tags with their attributes, the text of scripts, and all other text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text = Counter(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        self.attributes += [(name, value or "") for name, value in attrs]

    handle_startendtag = handle_starttag

    def handle_data(self, data):
        self.text.append(data)


def written(path, name):
    other = [(BOX, 0)], [(BOX, 1)]
    plots = plots_with(name)
    report = Report(
        name, {name: {name: name}}, name, name, training_curves=plots, training_images="data:image/png;base64,AAAA",
        training_images_caption=name, dataset_name=name, num_images=9, figures={name: 1.0}, class_names=[name, "b"],
        tables=[Table(name, [name, "AP"], [[name, 1.0], [name, float("nan")]], bars=(1,))], score_curves=plots,
        confusion=ConfusionTable([(0, name), (1, "b")], Counter({(0, 1): 2, (None, 0): 1}), 2),
        image_cards=[card(name, objects(*other[0]), objects(*other[1], scores=[0.5]), names=(name, "b"))],
        attention={name: "data:image/png;base64,AAAA"},
    )  # fmt: skip
    save_report(report, path)
    return Elements(path.read_text(encoding="utf-8"))


def plots_with(name):
    ones = np.ones(2)
    curve = SimpleNamespace(recall=ones, precision=ones)
    with page_style():
        figure = Figure()
        plot_precision_recall(figure.subplots(), {name: curve}, curve)
        return [svg(figure, name)]


@pytest.fixture(scope="module")
def harmless(tmp_path_factory):
    return written(tmp_path_factory.mktemp("report") / "report.html", "harmless")


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_a_name_adds_no_element_and_no_attribute(tmp_path, harmless, name):
    elements = written(tmp_path / "report.html", name)
    assert elements.tags == harmless.tags
    assert Counter(key for key, _ in elements.attributes) == Counter(key for key, _ in harmless.attributes)
    assert not any(key.startswith("on") for key, _ in elements.attributes)
    links = [value for key, value in elements.attributes if key in ("href", "src", "xlink:href", "action")]
    assert links and all(value.startswith(("data:image/", "#")) for value in links)


def test_the_only_script_is_that_of_the_page(tmp_path):
    elements = written(tmp_path / "report.html", HOSTILE[0])
    script = Path(page_module.__file__).with_name("report.js").read_text(encoding="utf-8")
    assert elements.tags["script"] == 1 and script.strip() in "".join(elements.text)
    assert not re.search("innerHTML|outerHTML|insertAdjacentHTML|document.write|eval", script)
