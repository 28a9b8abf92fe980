"""The report opens in a browser that has no network, draws everything, and has nothing to complain about."""

import re
from pathlib import Path

import numpy as np
import pytest

from netpredict.evaluate.compare import Asked, compare
from netpredict.evaluate.report import write_report
from tests.browser.chromium import Opened, open_page
from tests.evaluate.ramp import case_of, silent


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Opened:
    folder = tmp_path_factory.mktemp("browser")
    steps = np.arange(400)
    case = case_of([np.sin(steps / 9 + phase) for phase in (0, 1)], names=("<b>one</b>", "two"))
    (folder / "report.html").write_text(write_report(compare(case, ["naive"], Asked(), silent)))
    return open_page(folder / "report.html", folder / "profile")


def test_every_figure_is_drawn(opened: Opened) -> None:
    places = re.findall(r'id="figure-\d+"', opened.dom)
    assert len(places) == 8  # four by lead time, three roll-outs, one interval
    assert f'data-drawn="{len(places)}"' in opened.dom
    assert opened.dom.count('class="xtitle"') == len(places)
    assert opened.dom.count('class="js-line"') > len(places)


def test_the_console_is_silent(opened: Opened) -> None:
    assert opened.console == []


def test_a_complaint_would_be_heard(tmp_path: Path) -> None:
    (tmp_path / "bad.html").write_text("<script>console.error('heard'); missing()</script>")
    console = open_page(tmp_path / "bad.html", tmp_path / "profile").console
    assert any("heard" in line for line in console)
    assert any("missing is not defined" in line for line in console)
