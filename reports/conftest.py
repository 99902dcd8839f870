"""Where the browser is, and where its pictures go."""

import os
from pathlib import Path

import browser
import pytest

PICTURES = Path(os.environ.get("XENT_PICTURES", "build/report")).absolute()


def pytest_report_header(config: pytest.Config) -> list[str]:
    return [f"browser: {browser.find_chromium() or browser.MISSING}", f"pictures: {PICTURES}"]


@pytest.fixture(scope="session")
def pictures() -> Path:
    PICTURES.mkdir(parents=True, exist_ok=True)
    return PICTURES


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory):
    command = browser.find_chromium()
    if command is None:
        pytest.exit(browser.MISSING, returncode=4)
    with browser.Browser(command, tmp_path_factory.mktemp("profile")).serving() as opened:
        yield opened
