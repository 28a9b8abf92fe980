"""The report is one page: the answer first, all numbers in it, nothing of it taken for markup."""

import json
import re
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from netpredict.evaluate.compare import Asked, Comparison, Verdict, compare
from netpredict.evaluate.report import write_report
from tests.evaluate.ramp import case_of, silent

HOSTILE = "</script><script>alert(1)</script><b>"


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    steps = np.arange(400)
    values = [10 * np.sin(2 * np.pi * steps / 24 + phase) + np.cos(steps**2) for phase in (0, 1)]
    case = case_of(values, names=(HOSTILE, "other"))
    features = replace(case.training.features, season_buckets=24, season_us=24_000_000)
    case = replace(case, training=replace(case.training, features=features), least_mae=0.25)
    return compare(case, ["naive", "seasonal_naive"], Asked(), silent)


def body(page: str) -> str:
    return page[page.index("<body>") : page.index("<script>")]


def figures(page: str) -> list[dict]:
    (line,) = re.findall(r"^const figures = (.*);$", page, re.MULTILINE)
    return json.loads(line)


def test_the_answer_stands_first_and_every_predictor_in_the_table(comparison: Comparison):
    page = body(write_report(comparison))
    answer = re.search(r"<h1>(.*?)</h1>", page)[1]
    assert answer.startswith("seasonal_naive forecasts best, its error is ")
    assert answer.endswith(" % below naive")
    for entry in comparison.entries:
        assert re.search(rf"<th><i[^>]*></i>{entry.predictor}</th>", page)
    assert "Nobody can be below 0.25" in page
    assert page.index("<h1>") < page.index("<table>") < page.index("<figure")


@pytest.mark.parametrize(
    ("best", "second", "difference", "answer"),
    [
        ("naive", "seasonal_naive", 1.0, "No predictor is better than the last value"),
        ("seasonal_naive", "naive", 0.1, "seasonal_naive and naive are too close to call"),
        ("seasonal_naive", None, None, "seasonal_naive forecasts best"),
    ],
)
def test_an_answer_that_is_not_clear_is_not_told_as_one(
    comparison: Comparison, best: str, second: str | None, difference: float | None, answer: str
):
    entries = sorted(comparison.entries, key=lambda entry: entry.predictor != best)
    verdict = Verdict(best=best, second=second, difference=difference, standard_error=0.2)
    page = body(write_report(msgspec.structs.replace(comparison, entries=entries, verdict=verdict)))
    assert f"<h1>{answer}" in page


def test_nothing_of_the_data_is_taken_for_markup(comparison: Comparison):
    page = write_report(comparison)
    assert HOSTILE not in page
    assert page.count("<script>") == page.count("</script>") == 2
    assert "&lt;/script&gt;" in body(page)


def test_the_page_asks_for_nothing_from_outside(comparison: Comparison):
    page = write_report(comparison)
    head = page[: page.index("<body>")]
    assert "default-src 'none'" in head
    assert re.findall(r"<(?:link|img|iframe|script)[^>]+(?:src|href)=", head + body(page)) == []


def test_a_predictor_has_the_same_colour_in_every_figure(comparison: Comparison):
    colours: dict[str, set[str]] = {}
    for figure in figures(write_report(comparison)):
        for trace in figure["data"]:
            if "name" in trace:
                colours.setdefault(trace["name"], set()).add(trace["line"]["color"])
    assert set(colours) == {"naive", "seasonal_naive", "truth"}
    assert all(len(found) == 1 for found in colours.values())
    assert len(set.union(*colours.values())) == 3


def test_every_axis_is_named_and_every_figure_has_its_place(comparison: Comparison):
    page = write_report(comparison)
    found = figures(page)
    assert [figure["layout"]["xaxis"]["title"]["text"] != "" for figure in found] == [True] * len(found)
    assert re.findall(r'id="figure-(\d+)"', page) == [str(number + 1) for number in range(len(found))]
