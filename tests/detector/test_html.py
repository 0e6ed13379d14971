"""The shell of the HTML reports."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image, ImageColor

from detector.display.html import DARK, LIGHT, in_both_themes, page, svg


def rgb(colour: str) -> np.ndarray:
    return np.array(ImageColor.getrgb(colour))


def test_a_title_cannot_write_into_the_page() -> None:
    made = page("<script>alert(1)</script>", "<p>body</p>")
    assert "<script>" not in made
    assert "<title>&lt;script&gt;" in made
    assert made.index("<main>") < made.index("<p>body</p>") < made.index("</main>")


def test_a_drawing_takes_the_dark_colours_and_mixtures_stay_the_same_mixtures() -> None:
    light, dark = (np.stack([rgb(getattr(theme, name)) for name in ("paper", "ink", "first", "second")])
                   for theme in (LIGHT, DARK))  # fmt: skip
    shares = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0.5, 0.5, 0, 0], [0.7, 0, 0.3, 0]])
    drawn = np.repeat((shares @ light).round().astype(np.uint8)[None], 4, axis=0)
    pictures = in_both_themes(drawn)
    for png, colours in zip(pictures, (light, dark), strict=True):
        shown = np.asarray(Image.open(BytesIO(png)).convert("RGB")).astype(int)
        assert shown.shape == drawn.shape
        # A colour table rounds each colour to a step of eight.
        np.testing.assert_allclose(shown[0], shares @ colours, atol=12)
        np.testing.assert_array_equal(shown[0, 0], colours[0])


def test_a_drawing_of_lines_takes_the_pages_colours_and_keeps_its_ids_to_itself() -> None:
    drawn = (
        '<?xml version="1.0"?>\n<!DOCTYPE svg>\n<svg xmlns="http://www.w3.org/2000/svg" width="9pt" version="1.1">'
        '<metadata><a href="http://example.org"/></metadata><defs><path id="m1"/></defs>'
        f'<use xlink:href="#m1" style="stroke: {LIGHT.first}; fill: #0072b3"/>'
        f'<g clip-path="url(#c)" fill="{LIGHT.ink.upper()}"/></svg>'
    )
    made = svg(drawn, 'a "curve" & more', "curve")
    assert made.startswith('<svg role="img" aria-label="a &quot;curve&quot; &amp; more" width="9pt">')
    assert "http" not in made
    assert "metadata" not in made
    assert '<path id="curve-m1"/>' in made
    assert 'href="#curve-m1" style="stroke: var(--first); fill: #0072b3"' in made
    assert 'clip-path="url(#curve-c)" fill="var(--ink)"' in made
