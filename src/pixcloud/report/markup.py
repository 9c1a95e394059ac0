"""Stage 10, markup: text and numbers -> HTML that cannot be broken by what it shows.

Used by every part of `pixcloud.report`. A plain `str` is always escaped; only `Html`, which `tag`
and `join` make, goes through as it is. Numbers get their unit here, and no false precision.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterable
from typing import Any

VOID = ("br", "img", "meta", "wbr")


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def tag(element: str, /, *children: str | None, **attributes: Any) -> Html:
    """An element; attribute names lose a trailing underscore, and others become hyphens.

    Args:
        element: its name.
        *children: plain text is escaped, `Html` is not, None is left out.
        **attributes: True stands alone, False and None are left out.

    >>> tag("p", "1 < 2", tag("br"), class_="note", data_n=3)
    '<p class="note" data-n="3">1 &lt; 2<br></p>'
    """
    words = [element]
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if value is True:
            words.append(key)
        elif value is not None and value is not False:
            words.append(f'{key}="{html.escape(str(value), quote=True)}"')
    opening = f"<{' '.join(words)}>"
    return Html(opening if element in VOID else f"{opening}{join(children)}</{element}>")


def join(parts: Iterable[str | None]) -> Html:
    """Parts one after another, plain text escaped.

    >>> join([tag("b", "a"), "<", None])
    '<b>a</b>&lt;'
    """
    return Html(
        "".join(
            part if isinstance(part, Html) else html.escape(part)
            for part in parts
            if part is not None
        )
    )


def data_script(identifier: str, value: Any) -> Html:
    """A value as JSON within the page, for its script; no content can end the element.

    >>> data_script("x", "</script>")
    '<script type="application/json" id="x">"\\\\u003c/script\\\\u003e"</script>'
    """
    text = json.dumps(_finite(value), separators=(",", ":"), ensure_ascii=True)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return tag("script", Html(text), type="application/json", id=identifier)


def _finite(value: Any) -> Any:
    """JSON has no NaN: such a number becomes null, which a chart shows as a gap."""
    if isinstance(value, dict):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def section(identifier: str, title: str, lead: str | None, *children: str | None) -> Html:
    """A part of the page with a heading and a sentence that says what it shows."""
    return tag(
        "section",
        tag("h2", title, id=f"{identifier}-title"),
        tag("p", lead, class_="lead") if lead else None,
        *children,
        id=identifier,
        aria_labelledby=f"{identifier}-title",
    )


def figure(identifier: str, label: str, spec: dict[str, Any], caption: str, height: int) -> Html:
    """A chart: a Plotly figure with a caption; `label` says it in words to a screen reader."""
    return tag(
        "figure",
        tag(
            "div",
            class_="chart",
            data_figure=identifier,
            role="img",
            aria_label=label,
            style=f"height:{height}px",
        ),
        data_script(f"figure-{identifier}", spec),
        tag("figcaption", caption),
    )


def table(
    head: list[str], rows: list[list[str]], numeric: Iterable[int] = (), class_: str | None = None
) -> Html:
    """A table that scrolls sideways where the window is narrow; numeric columns align right."""
    right = set(numeric)

    def row(kind: str, cells: list[str]) -> Html:
        return tag(
            "tr",
            *(
                tag(kind, cell, class_="number" if place in right else None)
                for place, cell in enumerate(cells)
            ),
        )

    return tag(
        "div",
        tag(
            "table",
            tag("thead", row("th", head)),
            tag("tbody", *(row("td", cells) for cells in rows)),
            class_=class_,
        ),
        class_="scroll",
        tabindex=0,
    )


def percent(share: float) -> str:
    """A share as a percentage with one decimal.

    >>> percent(0.875)
    '87.5 %'
    """
    return f"{100 * share:.1f} %"


def interval(ends: tuple[float, float] | None) -> str:
    """A 95 % interval of a share, in percent.

    >>> interval((0.841, 0.903))
    '84.1 to 90.3 %'
    """
    return f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f} %" if ends else "–"


def duration(seconds: float) -> str:
    """Seconds as a person says them.

    >>> duration(7.4), duration(192), duration(7500), duration(190_000)
    ('7.4 s', '3 min 12 s', '2 h 5 min', '2 d 4 h')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    total = round(seconds)
    if total < 3600:
        return f"{total // 60} min {total % 60} s"
    if total < 86400:
        return f"{total // 3600} h {total % 3600 // 60} min"
    return f"{total // 86400} d {total % 86400 // 3600} h"


def significant(value: float, digits: int = 3) -> str:
    """A number with so many significant digits and thousands separators.

    >>> significant(12345.6), significant(0.01234), significant(98.76)
    ('12,346', '0.0123', '98.8')
    """
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}" if decimals < 8 else f"{value:.{digits}g}"


def plural(count: int, noun: str) -> str:
    """A count with its noun.

    >>> plural(1, "epoch"), plural(2000, "epoch")
    ('1 epoch', '2,000 epochs')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
