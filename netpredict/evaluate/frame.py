"""What the HTML reports share: one page that needs no network, its sections and tables, plotly figures of one look."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any

from plotly.graph_objects import Figure as Figure
from plotly.offline import get_plotlyjs

from netpredict.evaluate.page import PAGE

TRUTH = "#16181d"
FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif'
GRID, AXIS = "#e6e8ec", "#5b6270"


class Frame:
    """Holds the figures of a page in the order in which their panels were made."""

    def __init__(self) -> None:
        self._figures: list[dict[str, Any]] = []

    def figure(self, x: str, y: str) -> Figure:
        """An empty figure with these axes."""
        axis = {"gridcolor": GRID, "zeroline": False, "linecolor": AXIS, "showline": True, "ticks": "outside"}
        axis |= {"tickcolor": AXIS, "automargin": True}
        return Figure(
            layout={
                "template": "none",
                "height": 280,
                "margin": {"l": 58, "r": 14, "t": 10, "b": 46},
                "font": {"family": FONT, "size": 12, "color": TRUTH},
                "showlegend": False,
                "hovermode": "x unified",
                "hoverlabel": {"font": {"size": 12}},
                "paper_bgcolor": "#ffffff",
                "plot_bgcolor": "#ffffff",
                "xaxis": {**axis, "title": {"text": escape(x)}, "showgrid": False},
                "yaxis": {**axis, "title": {"text": escape(y), "standoff": 8}},
            }
        )

    def panel(self, title: str, figure: Figure, *, wide: bool = False) -> str:
        """The figure under its title; its data go to the page's script."""
        told = json.loads(figure.to_json())
        self._figures.append({"data": told["data"], "layout": told["layout"]})
        place = f"figure-{len(self._figures)}"
        height = told["layout"]["height"]
        return (
            f'<figure class="{"wide" if wide else ""}"><figcaption>{escape(title)}</figcaption>'
            f'<div id="{place}" class=plot style="height:{height}px"></div></figure>'
        )

    def page(self, title: str, body: Iterable[str]) -> str:
        """The whole page; ``body`` is read first, for it makes the figures."""
        parts = "\n".join(body)
        return (
            PAGE.replace("@TITLE@", escape(title))
            .replace("@BODY@", parts)
            .replace("@FIGURES@", json.dumps(self._figures).replace("</", "<\\/"))
            .replace("@PLOTLY@", get_plotlyjs().replace("</script", "<\\/script"))
        )


def header(eyebrow: str, answer: str, why: str, told: Iterable[tuple[str, str, str]]) -> str:
    """The answer first; then ``told``, tiles of name, value and note."""
    shown = "".join(
        f"<div class=tile><span>{escape(name)}</span><b>{escape(value)}</b><small>{escape(note)}</small></div>"
        for name, value, note in told
    )
    return (
        f"<header><p class=eyebrow>{escape(eyebrow)}</p>"
        f"<h1>{escape(answer)}</h1><p class=lede>{escape(why)}</p>"
        f"<div class=tiles>{shown}</div></header>"
    )


def legend(colours: Iterable[tuple[str, str]]) -> str:
    """Names with their colours, on top while the page is read."""
    chips = "".join(f'<span><i style="background:{colour}"></i>{escape(name)}</span>' for name, colour in colours)
    return f"<nav class=legend>{chips}</nav>"


def section(title: str, note: str, parts: Iterable[str]) -> Iterator[str]:
    """Title and note are markup."""
    yield f"<section><h2>{title}</h2><p class=note>{note}</p>"
    yield from parts
    yield "</section>"


def table(heads: Sequence[str], rows: Iterable[str]) -> str:
    """``rows`` are markup, see ``row``."""
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    return f"<div class=scroll><table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"


def row(first: str, columns: Iterable[str], colour: str = "") -> str:
    """``columns`` are markup."""
    chip = f'<i style="background:{colour}"></i>' if colour else ""
    return f"<tr><th>{chip}{escape(first)}</th>{''.join(f'<td>{text}</td>' for text in columns)}</tr>"


def grid(panels: Iterable[str]) -> str:
    """Panels side by side."""
    shown = list(panels)
    columns = 2 if len(shown) in (2, 4) else 3
    return f'<div class="grid of-{columns}">{"".join(shown)}</div>'


def facts(told: Iterable[tuple[str, str]]) -> str:
    """Names and what is said of them."""
    return f"<dl>{''.join(f'<dt>{escape(name)}</dt><dd>{escape(text)}</dd>' for name, text in told)}</dl>"


def finite(value: float | None) -> float | None:
    """None for what no plot can show."""
    return value if value is not None and math.isfinite(value) else None


def faint(colour: str) -> str:
    """#rrggbb as a shade that lets others through."""
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.18)"


def number(value: float) -> str:
    """Three digits, more only before the point."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" if value else "0"


def percent(ratio: float | None) -> str:
    """A share with one decimal."""
    return "–" if ratio is None else f"{100 * ratio:.1f} %".replace("-0.0 %", "0.0 %")


def seconds(value: float | None) -> str:
    """Two decimals below ten."""
    return "–" if value is None else f"{value:.2f} s" if value < 10 else f"{value:,.0f} s"


def utc(time_us: int) -> str:
    """To the second."""
    return f"{datetime.fromtimestamp(time_us / 1e6, UTC):%Y-%m-%d %H:%M:%S} UTC"
