"""Pages as a real browser shows them: nothing runs, nothing is fetched, nothing is cut off, and all can be read."""

import itertools
import re

import numpy as np
import pytest
from pages import compared, evaluated, hostile_slices, read

from xent.evaluation.report.page import page, pair_page

ROWS, CLASSES = 5000, 40
RUN = {"scheduler": "threads", "wall_seconds": 1.0}
WIDTHS = {"desktop": 1200, "phone": 360}


def sets():
    """Predictions that get worse along the rows, those of a second model, and their labels."""
    random = np.random.default_rng(7)
    labels = random.integers(0, CLASSES, ROWS)
    logits = random.normal(size=(ROWS, CLASSES))
    logits[np.arange(ROWS), labels] += 3 + np.sin(np.arange(ROWS) / 800)
    return logits, logits + random.normal(size=logits.shape) / 2, labels


def broken_sets():
    """Rows that are NaN, infinite or ignored, a class that is always right, and losses from nothing to thousands."""
    logits, _, labels = sets()
    logits *= np.geomspace(0.01, 3000, ROWS)[:, None]
    logits[17], logits[4000] = np.nan, np.nan
    logits[900, labels[900]] = -np.inf
    labels[::13] = -1
    return logits, labels


def made():
    """The pages by their names, and how many plots each has."""
    logits, other, labels = sets()
    odd, odd_labels = broken_sets()
    slices, none = hostile_slices(ROWS), np.zeros((0, 4))
    empty = evaluated(none, np.zeros(0, int))
    return {
        "evaluation": (page(*evaluated(logits, labels, slices=slices, by_class=True, top_k=(3, 5)), **RUN), 5),
        "broken": (page(*evaluated(odd, odd_labels, slices=np.arange(ROWS) % 7, ignore_index=(-1,)), **RUN), 4),
        "comparison": (pair_page(*compared(logits, other, labels, slices=slices), **RUN), 4),
        "empty": (page(*empty, **RUN), 0),
    }


NAMES = ("evaluation", "broken", "comparison", "empty")


@pytest.fixture(scope="session")
def opened(chromium):
    """The browser, with the pages."""
    found = made()
    chromium.pages |= {f"{name}.html": text for name, (text, _) in found.items()}
    chromium.plots = {name: plots for name, (_, plots) in found.items()}
    return chromium


@pytest.fixture(
    scope="session", params=[(n, w, s) for n in NAMES for w in WIDTHS for s in ("light", "dark")], ids="-".join
)
def seen(request, opened, pictures):
    """A page at one width in one scheme, of which a picture is taken too."""
    name, device, scheme = request.param
    look = opened.look(f"{name}.html", WIDTHS[device], scheme)
    path = pictures / f"{name}-{device}-{scheme}.png"
    opened.picture(f"{name}.html", WIDTHS[device], look.measures["height"], scheme, path)
    assert path.stat().st_size > 10_000
    return look, opened.plots[name], name


def rgb(colour):
    return [float(one) for one in re.findall(r"[\d.]+", colour)[:3]]


def contrast(one, other):
    """The contrast of two colours as WCAG 2 defines it, from 1 to 21."""
    light = []
    for colour in (one, other):
        linear = [x / 12.92 if x <= 0.03928 else ((x + 0.055) / 1.055) ** 2.4 for x in (c / 255 for c in rgb(colour))]
        light.append(np.dot(linear, (0.2126, 0.7152, 0.0722)))
    return (max(light) + 0.05) / (min(light) + 0.05)


def test_nothing_runs_and_nothing_is_complained_of(seen):
    look, _, name = seen

    assert look.console == []
    assert look.measures["scripts"] == 0
    assert look.measures["title"].endswith("comparison" if name == "comparison" else "evaluation")


def test_nothing_is_fetched(seen):
    look, _, name = seen

    assert set(look.requests) <= {"/frame.html", f"/{name}.html", "/favicon.ico"}  # an icon of the frame, not the page
    assert f"/{name}.html" in look.requests


def test_the_page_is_no_wider_than_the_screen(seen):
    measures = seen[0].measures

    assert measures["width"] <= measures["seen"]


def test_every_plot_is_there_with_a_size(seen):
    look, expected, _ = seen
    boxes = [plot["box"] for plot in look.measures["plots"]]

    assert len(boxes) == expected
    assert all(right - left > 250 and bottom - top > 40 for left, top, right, bottom in boxes)


def test_no_text_of_a_plot_is_cut_off(seen):
    for plot in seen[0].measures["plots"]:
        left, top, right, bottom = plot["card"]
        outside = [
            one["text"]
            for one in plot["texts"]
            if one["box"][0] < left or one["box"][1] < top or one["box"][2] > right or one["box"][3] > bottom
        ]
        assert not outside, f"{outside} of {plot['title']}"


def test_no_texts_of_a_plot_overlap(seen):
    for plot in seen[0].measures["plots"]:
        for one, other in itertools.combinations(plot["texts"], 2):
            (a, b, c, d), (e, f, g, h) = one["box"], other["box"]
            across, down = min(c, g) - max(a, e), min(d, h) - max(b, f)
            crossing = across > 1 and down > min(d - b, h - f) / 3  # a line's box is taller than its letters

            assert not crossing, f"{one['text']} and {other['text']} of {plot['title']}"


def test_text_of_a_plot_can_be_read(seen):
    measures = seen[0].measures
    for plot in measures["plots"]:
        for one in plot["texts"]:
            assert one["size"] >= 8.5, f"{one['text']} of {plot['title']}"
            assert contrast(one["colour"], measures["background"]) >= 4.5, f"{one['text']} of {plot['title']}"


def test_lines_and_bars_stand_out(seen):
    measures = seen[0].measures
    for plot in measures["plots"]:
        strongest = max(contrast(one, measures["background"]) for one in plot["paints"] if one.startswith("rgb("))
        assert strongest >= 3


@pytest.mark.parametrize("name", NAMES)
def test_the_browser_reads_the_page_as_it_is_written(opened, name):
    assert read(opened.dom(f"{name}.html")) == read(opened.pages[f"{name}.html"])


def test_light_and_dark_are_not_the_same(opened):
    light, dark = (opened.look("evaluation.html", 1200, scheme).measures for scheme in ("light", "dark"))

    assert min(rgb(light["background"])) > 200 and max(rgb(dark["background"])) < 60


def test_what_would_run_is_stopped_and_seen(opened):
    """The control of the tests above: the same page with a script and a picture in it."""
    added = '<main><script>document.title = "run"</script><img src="/beacon.png" onerror="document.title = \'run\'">'
    opened.pages["spoilt.html"] = opened.pages["evaluation.html"].replace("<main>", added, 1)
    look = opened.look("spoilt.html", 1200, "light")

    assert look.measures["scripts"] == 1 and look.measures["title"].endswith("evaluation")
    assert sum("Content Security Policy" in line for line in look.console) >= 2
    assert "/beacon.png" not in look.requests


def test_without_the_policy_it_would_run(opened):
    """The control of that: the browser does run scripts and fetch pictures."""
    text = opened.pages["evaluation.html"].replace("Content-Security-Policy", "X-None", 1)
    added = '<main><script>document.title = "run"</script><img src="/beacon.png">'
    opened.pages["open.html"] = text.replace("<main>", added, 1)
    look = opened.look("open.html", 1200, "light")

    assert look.measures["title"] == "run" and "/beacon.png" in look.requests


def test_a_picture_shows_the_plots(opened, tmp_path):
    """The control of the pictures: with the plots hidden there are fewer colours."""
    image = pytest.importorskip("PIL.Image")
    text = opened.pages["evaluation.html"]
    opened.pages["hidden.html"] = text.replace("</style>", "svg { visibility: hidden }</style>", 1)
    counts = []
    for name in ("evaluation", "hidden"):
        opened.picture(f"{name}.html", 1200, 2600, "light", tmp_path / f"{name}.png")
        with image.open(tmp_path / f"{name}.png") as picture:
            blue = np.asarray(picture.convert("RGB")).astype(int)
        counts.append(int(np.sum(blue[..., 2] - blue[..., 0] > 90)))

    assert counts[0] > 20_000 > counts[1]
