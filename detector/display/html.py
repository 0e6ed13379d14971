"""The shell of the HTML reports: one page that loads nothing, with a light and a dark theme."""

from __future__ import annotations

import base64
import re
from functools import cache
from html import escape
from io import BytesIO
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image


class Theme(NamedTuple):
    """The colours of one theme. first, second: of data, told apart with any colour vision (Okabe & Ito's palette)."""

    ink: str
    soft: str
    paper: str
    line: str
    card: str
    first: str
    second: str
    good: str
    bad: str
    warn: str


LIGHT = Theme(
    *("#1d2126", "#5b6470", "#ffffff", "#dfe3e8", "#f6f7f9", "#0072b2", "#d55e00"),
    *("#1d7a46", "#b3261e", "#8a5a00"),
)
DARK = Theme(
    *("#e6e8eb", "#a3abb5", "#16191d", "#343a42", "#1f242a", "#56b4e9", "#e69f00"),
    *("#5cc98b", "#ff8a80", "#e0b050"),
)
_STYLE = """\
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .6rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .4rem; }
p { margin: .4rem 0 .8rem; max-width: 46rem; }
.soft, figcaption, th { color: var(--soft); }
.good { color: var(--good); } .bad { color: var(--bad); } .warn { color: var(--warn); }
.headline { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .8rem; margin: 1.2rem 0; }
.headline div { background: var(--card); border-radius: .6rem; padding: .8rem 1rem; }
.headline b { display: block; font-size: 1.7rem; line-height: 1.2; color: var(--first); }
.headline b.good { color: var(--good); } .headline b.bad { color: var(--bad); }
.headline span { font-size: .88rem; color: var(--soft); }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 23rem), 1fr)); gap: 1.2rem; }
figure { margin: 0; }
figure > svg { width: 100%; height: auto; display: block; }
figure img { width: 100%; height: auto; display: block; border-radius: .4rem; }
figcaption { font-size: .9rem; margin-top: .3rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; margin-bottom: 1rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .35rem .8rem .35rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 500; font-size: .9rem; }
td.n, th.n, table.n td, table.n th { text-align: right; padding-right: 1.2rem; }
table.n td.text, table.n th.text { text-align: left; }
td span { white-space: nowrap; }
details { margin-top: 1.5rem; }
summary { cursor: pointer; }
code { font-size: .88em; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.25rem; margin: 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
"""


class Picture(NamedTuple):
    """One drawing as two PNG files."""

    light: bytes
    dark: bytes


def page(title: str, body: str, *, style: str = "") -> str:
    """A whole HTML page. title: plain text. body: HTML, inside `main`. style: CSS that this page needs beside the shell's."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>\n:root {{ {_variables(LIGHT)} }}\n"
        f"@media (prefers-color-scheme: dark) {{ :root {{ {_variables(DARK)} }} }}\n{_STYLE}{style}</style>\n</head>\n"
        f"<body>\n<main>\n{body.strip()}\n</main>\n</body>\n</html>\n"
    )


def _variables(theme: Theme) -> str:
    return " ".join(f"--{name}: {colour};" for name, colour in theme._asdict().items())


def picture(shown: Picture, alt: str, width: int, height: int) -> str:
    """HTML of a drawing in the theme of the reader; width, height: in CSS pixels, before it is fitted into the page."""
    return (
        f'<picture>\n<source media="(prefers-color-scheme: dark)" srcset="{inline(shown.dark)}">\n'
        f'<img src="{inline(shown.light)}" alt="{escape(alt)}" width="{width}" height="{height}">\n</picture>'
    )


def svg(drawing: str, alt: str, name: str) -> str:
    """An SVG file as a part of a page, in the theme of the reader: the colours of `LIGHT` in it become the page's own.

    alt: what it shows, for those who can't see it. name: of this drawing on the page, before all ids in it.
    """
    body = drawing[drawing.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'\s(?:xmlns(?::\w+)?|version)="[^"]*"', "", body)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", body)
    for variable, colour in LIGHT._asdict().items():
        body = re.sub(re.escape(colour) + r"\b", f"var(--{variable})", body, flags=re.IGNORECASE)
    return body.replace("<svg", f'<svg role="img" aria-label="{escape(alt)}"', 1)


def inline(data: bytes, kind: str = "png") -> str:
    """A picture file as a data URI."""
    return f"data:image/{kind};base64," + base64.b64encode(data).decode("ascii")


def in_both_themes(pixels: NDArray[np.uint8]) -> Picture:
    """A drawing in the colours of `LIGHT`, uint8[H, W, 3] with paper in its corners, as PNG files for both themes.

    The files differ in their colour table alone, of 256 colours or fewer.
    """
    drawn = Image.fromarray(pixels).quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    table = np.reshape(np.array(drawn.getpalette(), np.float64), (-1, 3))
    table[np.asarray(drawn)[0, 0]] = _rgb(LIGHT.paper)  # the table's colours are rounded, and this one meets the page
    whole = np.concatenate([table, np.full((len(table), 1), 255.0)], axis=1)
    return Picture(_png(drawn, table), _png(drawn, whole @ _light_to_dark()))


@cache
def _light_to_dark() -> NDArray[np.float64]:
    """float64[4, 3]: the affine map from colours of the light theme, as (r, g, b, 255), to those of the dark one.

    Soft edges and translucent areas are weighted means of the theme's colours, and an affine map keeps weighted means.
    """
    names = ("paper", "ink", "first", "second")
    light = np.array([[*_rgb(getattr(LIGHT, name)), 255] for name in names], np.float64)
    return np.asarray(np.linalg.solve(light, np.array([_rgb(getattr(DARK, name)) for name in names], np.float64)))


def _rgb(colour: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(colour[1:])
    return red, green, blue


def _png(drawn: Image.Image, table: NDArray[np.float64]) -> bytes:
    drawn.putpalette(table.round().clip(0, 255).astype(np.uint8).tobytes())
    out = BytesIO()
    drawn.save(out, "PNG")
    return out.getvalue()
