"""A headless Chromium that opens pages of a small server and measures them.

A page is shown in a frame of the requested width, since a window of Chromium has a least width. The document around the
frame measures the page from outside: a page runs nothing itself.
"""

import contextlib
import json
import re
import shutil
import subprocess
import threading
from dataclasses import dataclass, field
from html import unescape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MISSING = f"make test-report needs a Chromium, and none of {', '.join(NAMES)} is on PATH. Debian: apt install chromium"
SCHEMES = {"dark": 0, "light": 1}  # as Blink counts them
FRAME = """<!DOCTYPE html><style>body { margin: 0 } iframe { border: 0; display: block }</style>
<iframe src="/%s" style="width: %dpx; height: %dpx"></iframe><script>%s</script>"""
MEASURE = """
function box(element) {
  const { left, top, right, bottom } = element.getBoundingClientRect();
  return [left, top, right, bottom];
}
onload = () => {
  const page = document.querySelector("iframe").contentDocument, root = page.documentElement;
  const view = page.defaultView;
  const measures = {
    title: page.title,
    scripts: page.querySelectorAll("script").length,
    width: root.scrollWidth, clientWidth: root.clientWidth, height: page.body.scrollHeight,
    background: view.getComputedStyle(page.querySelector("figure")).backgroundColor,
    plots: [...page.querySelectorAll("svg")].map((svg) => ({
      title: svg.querySelector("title").textContent,
      card: box(svg.closest("figure")),
      box: box(svg),
      texts: [...svg.querySelectorAll("text")].map((text) => ({
        text: text.textContent, box: box(text), colour: view.getComputedStyle(text).fill,
        size: parseFloat(view.getComputedStyle(text).fontSize) * svg.getBoundingClientRect().width /
          svg.viewBox.baseVal.width,
      })),
      paints: [...new Set([...svg.querySelectorAll("path, use")].flatMap((path) =>
        [view.getComputedStyle(path).fill, view.getComputedStyle(path).stroke]))],
    })),
  };
  const out = document.createElement("pre");
  out.textContent = JSON.stringify(measures);
  document.body.replaceChildren(out);
};
"""


@dataclass
class Rendering:
    """A page as the browser shows it: its measures, the lines of the console, and the requests to the server."""

    measures: dict
    console: list[str]
    requests: list[str]


@dataclass
class Browser:
    """Pages by their names, and a Chromium that opens them."""

    command: str
    profile: Path
    pages: dict[str, str] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    address: str = ""

    @contextlib.contextmanager
    def serving(self):
        """Run the server inside the with block."""
        browser = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                browser.requests.append(self.path)
                text = browser.pages.get(self.path.lstrip("/"))
                self.send_response(404 if text is None else 200)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.end_headers()
                self.wfile.write((text or "").encode())

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{server.server_port}"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()

    def run(self, name: str, *options: str, width: int = 1200, height: int = 900, scheme: str = "light"):
        """The finished process of a Chromium that opened a page with these options."""
        command = (
            *(self.command, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"),
            *("--enable-logging=stderr", "--v=0", "--disable-background-networking"),
            *(f"--user-data-dir={self.profile}", f"--window-size={max(width, 500)},{height}"),
            *(f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}", *options, f"{self.address}/{name}"),
        )
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)

    def dom(self, name: str) -> str:
        """The document that the browser parsed from a page, as HTML."""
        return self.run(name, "--dump-dom").stdout

    def render(self, name: str, width: int, scheme: str) -> Rendering:
        """Open a page in a frame of this width and measure it."""
        self.pages["frame.html"] = FRAME % (name, width, 900, MEASURE)
        self.requests.clear()
        process = self.run("frame.html", "--dump-dom", width=width, scheme=scheme)
        measures = json.loads(unescape(re.search(r"<pre>(.*)</pre>", process.stdout, re.S)[1]))
        console = [line for line in process.stderr.splitlines() if "CONSOLE" in line]
        return Rendering(measures, console, list(self.requests))

    def screenshot(self, name: str, width: int, height: int, scheme: str, path: Path) -> None:
        """Write a picture of a whole page."""
        self.pages["frame.html"] = FRAME % (name, width, height, "")
        self.run("frame.html", f"--screenshot={path}", width=width, height=height, scheme=scheme)

    def picture(self, name: str, path: Path) -> None:
        """Write the picture of a page that the documentation shows: its beginning, sharp on a dense screen."""
        self.run(name, "--force-device-scale-factor=1.25", f"--screenshot={path}", width=1080, height=1420)


def find_chromium() -> str | None:
    """The path of a Chromium, or None if there is none on PATH."""
    return next(filter(None, map(shutil.which, NAMES)), None)
