"""Pages as a real browser shows them: nothing runs, nothing is fetched, no text is cut off or too faint to read."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from pages import compared, evaluated, hostile_slices, read

from xent.cli import main
from xent.evaluation.report.page import comparison_page, evaluation_page

ROWS, CLASSES = 5000, 40
WIDTHS = {"desktop": 1200, "phone": 360}
MAIN = '<main class="sections">'


def sets():
    """Predictions that get worse along the rows, those of a second model, and their labels."""
    random = np.random.default_rng(7)
    labels = random.integers(0, CLASSES, ROWS)
    logits = random.normal(size=(ROWS, CLASSES))
    logits[np.arange(ROWS), labels] += 3 + np.sin(np.arange(ROWS) / 800)
    return logits, logits + random.normal(size=logits.shape) / 2, labels


def broken_set():
    """Rows that are NaN, infinite or ignored, a class that is always right, and losses from nothing to thousands."""
    logits, _, labels = sets()
    logits *= np.geomspace(0.01, 3000, ROWS)[:, None]
    logits[17], logits[4000] = np.nan, np.nan
    logits[900, labels[900]] = -np.inf
    labels[::13] = -1
    return logits, labels


def pages_and_plots():
    """The pages by their names, each with its number of plots."""
    logits, other, labels = sets()
    broken, broken_labels = broken_set()
    slices, empty = hostile_slices(ROWS), (np.zeros((0, 4)), np.zeros(0, int))
    return {
        "evaluation": (
            evaluation_page(*evaluated(logits, labels, slices=slices, by_class=True, top_k=(3, 5))),
            5,
        ),
        "broken": (
            evaluation_page(*evaluated(broken, broken_labels, slices=np.arange(ROWS) % 7, ignore_index=(-1,))),
            4,
        ),
        "comparison": (comparison_page(*compared(logits, other, labels, slices=slices)), 4),
        "empty": (evaluation_page(*evaluated(*empty)), 0),
    }


NAMES = ("evaluation", "broken", "comparison", "empty")


@pytest.fixture(scope="session")
def opened(chromium):
    """The browser, with the pages."""
    pages = pages_and_plots()
    chromium.pages |= {f"{name}.html": text for name, (text, _) in pages.items()}
    chromium.plots = {name: plots for name, (_, plots) in pages.items()}
    return chromium


@pytest.fixture(
    scope="session", params=[(n, w, s) for n in NAMES for w in WIDTHS for s in ("light", "dark")], ids="-".join
)
def rendered(request, opened, pictures):
    """A page at one width in one scheme, its number of plots and its name; a screenshot is kept too."""
    name, device, scheme = request.param
    rendering = opened.render(f"{name}.html", WIDTHS[device], scheme)
    path = pictures / f"{name}-{device}-{scheme}.png"
    opened.screenshot(f"{name}.html", WIDTHS[device], rendering.measures["height"], scheme, path)
    assert path.stat().st_size > 10_000
    return rendering, opened.plots[name], name


def rgb(colour):
    return [float(channel) for channel in re.findall(r"[\d.]+", colour)[:3]]


def contrast(*colours):
    """The contrast of two colours as WCAG 2 defines it, from 1 to 21."""
    luminances = []
    for colour in colours:
        linear = [x / 12.92 if x <= 0.03928 else ((x + 0.055) / 1.055) ** 2.4 for x in (c / 255 for c in rgb(colour))]
        luminances.append(np.dot(linear, (0.2126, 0.7152, 0.0722)))
    return (max(luminances) + 0.05) / (min(luminances) + 0.05)


def test_nothing_runs_and_the_console_is_empty(rendered):
    rendering, _, name = rendered

    assert rendering.console == []
    assert rendering.measures["scripts"] == 0
    assert rendering.measures["title"].endswith("comparison" if name == "comparison" else "evaluation")


def test_nothing_is_fetched(rendered):
    rendering, _, name = rendered

    allowed = {"/frame.html", f"/{name}.html", "/favicon.ico"}  # the icon is the frame's, not the page's
    assert set(rendering.requests) <= allowed
    assert f"/{name}.html" in rendering.requests


def test_the_page_is_no_wider_than_the_screen(rendered):
    measures = rendered[0].measures

    assert measures["width"] <= measures["clientWidth"]


def test_every_plot_is_there_with_a_size(rendered):
    rendering, expected, _ = rendered
    boxes = [plot["box"] for plot in rendering.measures["plots"]]

    assert len(boxes) == expected
    assert all(right - left > 250 and bottom - top > 40 for left, top, right, bottom in boxes)


def test_no_text_of_a_plot_is_cut_off(rendered):
    for plot in rendered[0].measures["plots"]:
        left, top, right, bottom = plot["card"]
        outside = [
            text["text"]
            for text in plot["texts"]
            if text["box"][0] < left or text["box"][1] < top or text["box"][2] > right or text["box"][3] > bottom
        ]
        assert not outside, f"{outside} of {plot['title']}"


def test_no_texts_of_a_plot_overlap(rendered):
    for plot in rendered[0].measures["plots"]:
        for text, other in itertools.combinations(plot["texts"], 2):
            (a, b, c, d), (e, f, g, h) = text["box"], other["box"]
            across, down = min(c, g) - max(a, e), min(d, h) - max(b, f)
            crossing = across > 1 and down > min(d - b, h - f) / 3  # a line's box is taller than its letters

            assert not crossing, f"{text['text']} and {other['text']} of {plot['title']}"


def test_text_of_a_plot_can_be_read(rendered):
    measures = rendered[0].measures
    for plot in measures["plots"]:
        for text in plot["texts"]:
            assert text["size"] >= 8.5, f"{text['text']} of {plot['title']}"
            assert contrast(text["colour"], measures["background"]) >= 4.5, f"{text['text']} of {plot['title']}"


def test_lines_and_bars_stand_out(rendered):
    measures = rendered[0].measures
    for plot in measures["plots"]:
        paints = [paint for paint in plot["paints"] if paint.startswith("rgb(")]
        strongest = max(contrast(paint, measures["background"]) for paint in paints)
        assert strongest >= 3


@pytest.mark.parametrize("name", NAMES)
def test_the_browser_reads_the_page_as_it_is_written(opened, name):
    assert read(opened.dom(f"{name}.html")) == read(opened.pages[f"{name}.html"])


def test_light_and_dark_are_not_the_same(opened):
    light, dark = (opened.render("evaluation.html", 1200, scheme).measures for scheme in ("light", "dark"))

    assert min(rgb(light["background"])) > 200 and max(rgb(dark["background"])) < 60


def test_what_would_run_is_stopped_and_reported(opened):
    """The control of the tests above: the same page with a script and a picture in it."""
    added = MAIN + '<script>document.title = "run"</script><img src="/beacon.png" onerror="document.title = \'run\'">'
    opened.pages["scripted.html"] = opened.pages["evaluation.html"].replace(MAIN, added, 1)
    rendering = opened.render("scripted.html", 1200, "light")

    assert rendering.measures["scripts"] == 1 and rendering.measures["title"].endswith("evaluation")
    assert sum("Content Security Policy" in line for line in rendering.console) >= 2
    assert "/beacon.png" not in rendering.requests


def test_without_the_policy_it_would_run(opened):
    """The control of that: the browser does run scripts and fetch pictures."""
    text = opened.pages["evaluation.html"].replace("Content-Security-Policy", "X-None", 1)
    added = MAIN + '<script>document.title = "run"</script><img src="/beacon.png">'
    opened.pages["open.html"] = text.replace(MAIN, added, 1)
    rendering = opened.render("open.html", 1200, "light")

    assert rendering.measures["title"] == "run" and "/beacon.png" in rendering.requests


def test_a_picture_shows_the_plots(opened, tmp_path):
    """The control of the pictures: with the plots hidden there are fewer colours."""
    image = pytest.importorskip("PIL.Image")
    text = opened.pages["evaluation.html"]
    opened.pages["hidden.html"] = text.replace("</style>", "svg { visibility: hidden }</style>", 1)
    counts = []
    for name in ("evaluation", "hidden"):
        opened.screenshot(f"{name}.html", 1200, 2600, "light", tmp_path / f"{name}.png")
        with image.open(tmp_path / f"{name}.png") as picture:
            blue = np.asarray(picture.convert("RGB")).astype(int)
        counts.append(int(np.sum(blue[..., 2] - blue[..., 0] > 90)))

    assert counts[0] > 20_000 > counts[1]


# -------------------- the picture of the documentation

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "docs" / "pictures" / "evaluation.png"


@pytest.fixture(scope="session")
def readmes_page(tmp_path_factory):
    """The page that the commands of the README write."""
    commands = re.findall(r"^\$ xent (.*)$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("readme"))
        for command in commands:
            result = CliRunner().invoke(main, command.split())
            assert result.exit_code == 0, result.output
        return Path("report.html").read_text("utf-8").replace(f"{Path.cwd()}/", "")


def difference(image, path, other):
    """The mean difference of two pictures, of 255; infinite if their sizes differ."""
    a, b = (np.asarray(image.open(each).convert("L")).astype(float) for each in (path, other))
    return np.abs(a - b).mean() if a.shape == b.shape else np.inf


def test_the_picture_of_the_documentation_is_the_page_of_the_readmes_commands(opened, readmes_page, pictures, tmp_path):
    image = pytest.importorskip("PIL.Image")
    new = pictures / PICTURE.name
    opened.pages["readme.html"] = readmes_page
    opened.pages["other.html"] = readmes_page.replace("<tr>", "<tr hidden>", 3)  # the control: a page that lacks rows
    opened.picture("readme.html", new)
    opened.picture("other.html", tmp_path / "other.png")

    assert difference(image, new, PICTURE) < 1, f"look at {new}, and copy it to {PICTURE}"
    assert difference(image, new, tmp_path / "other.png") > 1
