"""Features: eyes, brows, nose, mouth, beard, hair and glasses of a demo portrait.

Each function paints one thing, in place. `u`, `v` are coordinates on the face: 0 between the eyes, 1 down at the chin,
±0.75 at the ears; `light` is the shading of the skin, so that what lies on the face is lit with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from training.demo.canvas import (
    Colour,
    Picture,
    Plane,
    bump,
    colour,
    ellipse,
    inside,
    noise,
    paint,
    palette,
    pick_colour,
    step,
    window,
)

EYE = 0.31
"""Distance of each eye from the middle of the face."""
LID = 0.175
"""Half the width of an eye."""


@dataclass(frozen=True)
class Look:
    """What makes a person: colours in linear light, lengths in half heads."""

    skin: Colour
    hair: Colour
    iris: Colour
    lips: Colour
    eye_height: float
    brow_height: float
    brow_weight: float
    nose_width: float
    mouth_width: float
    lip_height: float
    smile: float
    gaze: tuple[float, float]


def draw_eyes(rng: np.random.Generator, face: Picture, look: Look, fu: Plane, fv: Plane, shade: Plane, edge: float) -> None:
    """Sclera, iris, pupil, catch light, lids and lashes."""
    slant = rng.uniform(-0.06, 0.10)
    lash = rng.uniform(0.012, 0.028)
    glint = (rng.uniform(-0.03, 0.03), rng.uniform(-0.05, -0.02))
    for side in (-1.0, 1.0):
        here = window((np.abs(fu - side * EYE) < 0.4) & (np.abs(fv) < 0.3))
        picture, u, v, light = face[here], fu[here], fv[here], shade[here]
        x = (u - side * EYE) * side / LID
        y = v + slant * (x * LID)
        arch = np.clip(1 - x * x, 0, None)
        upper, lower = -look.eye_height * arch**0.75, 0.62 * look.eye_height * arch
        opening = inside(np.maximum(upper - y, y - lower), edge) * inside((np.abs(x) - 1) * LID, edge)
        socket = bump(u, v, (side * EYE, -0.01), (0.20, 0.13))
        picture *= (1 - 0.28 * socket * (1 - opening))[..., None]
        white = colour(0.88, 0.85, 0.83) * (0.30 + 0.65 * light * step(y - upper, -0.01, 0.07))[..., None]
        distance = np.hypot(u - side * EYE - look.gaze[0], y - look.gaze[1])
        ring = look.iris * (0.55 + 4.5 * np.clip(distance, 0, 0.10))[..., None]
        paint(white, inside(distance - 0.094, edge), colour(0.05, 0.04, 0.04))
        paint(white, inside(distance - 0.082, edge), np.asarray(ring, np.float32))
        paint(white, inside(distance - 0.036, edge), colour(0.02, 0.02, 0.02))
        spark = np.hypot(u - side * EYE - look.gaze[0] - glint[0], y - look.gaze[1] - glint[1])
        paint(white, inside(spark - 0.020, edge), colour(0.97, 0.97, 1.0))
        paint(picture, opening, np.asarray(white, np.float32))
        across = inside((np.abs(x) - 1.04) * LID, edge)
        paint(picture, np.exp(-(((y - upper) / lash) ** 2)) * across * 0.9, look.hair * 0.15)
        paint(picture, np.exp(-(((y - lower) / 0.010) ** 2)) * across * 0.35, look.skin * 0.25)
        paint(picture, np.exp(-(((y - upper + 0.055) / 0.014) ** 2)) * across * 0.45, look.skin * 0.3)


def draw_brows(rng: np.random.Generator, picture: Picture, look: Look, u: Plane, v: Plane, light: Plane, edge: float) -> None:
    """Two arcs of short hair."""
    arch, tilt = rng.uniform(0.02, 0.07), rng.uniform(-0.03, 0.06)
    hairs = 0.8 + 0.2 * noise(rng, u.shape, u.shape[1] / 2)
    for side in (-1.0, 1.0):
        x = (u - side * (EYE + 0.01)) * side / 0.21
        middle = -look.brow_height - arch * (1 - x * x) - tilt * x
        weight = look.brow_weight * np.clip(1 - 0.45 * np.abs(x) ** 2 - 0.25 * x, 0.1, 1)
        arc = inside(np.abs(v - middle) - weight, 2 * edge) * inside((np.abs(x) - 1) * 0.21, 3 * edge)
        paint(picture, arc * np.clip(hairs, 0, 1) * 0.88, look.hair * 0.5 * (0.4 + 0.6 * light)[..., None])


def draw_nose(picture: Picture, look: Look, u: Plane, v: Plane, edge: float) -> None:
    """Nostrils, wings and the shadow below; the ridge itself is part of the relief."""
    width = look.nose_width
    for side in (-1.0, 1.0):
        hole = ellipse(u, v, (side * width * 0.52, 0.375), (0.042, 0.020))
        paint(picture, inside(hole, 2 * edge) * 0.75, look.skin * 0.10)
        wing = np.abs(np.hypot((u - side * width * 0.78) / 0.062, (v - 0.335) / 0.075) - 1) * 0.065
        paint(picture, np.exp(-((wing / 0.016) ** 2)) * step(side * u, width * 0.75, width * 1.05) * 0.35, look.skin * 0.3)
    picture *= (1 - 0.25 * bump(u, v, (0, 0.43), (width * 1.0, 0.035)))[..., None]


def draw_mouth(rng: np.random.Generator, picture: Picture, look: Look, u: Plane, v: Plane, light: Plane, edge: float) -> None:
    """Two lips, and teeth where the smile is wide enough to show them."""
    x = u / look.mouth_width
    arch = np.clip(1 - x * x, 0, None)
    line = 0.60 - look.smile * 0.10 * (x * x - 0.35)
    bow = 1 - 0.30 * np.exp(-((x / 0.16) ** 2))
    gap = max(0.0, look.smile - 0.35) * rng.uniform(0, 0.13) * arch
    upper = line - gap * 0.5 - look.lip_height * 0.75 * bow * arch**0.8
    lower = line + gap * 0.7 + look.lip_height * arch**0.6
    ends = inside((np.abs(x) - 1) * look.mouth_width, edge)
    lips = inside(np.maximum(upper - v, v - lower), 1.5 * edge) * ends
    shade = light * (0.78 + 0.38 * bump(u, v, (0.03, 0.65), (0.13, 0.03)) - 0.22 * step(line - v, -0.01, 0.03))
    paint(picture, lips * 0.92, np.asarray(look.lips * shade[..., None], np.float32))
    open_mouth = inside(np.maximum(line - gap * 0.5 - v, v - line - gap * 0.7), edge) * ends * (gap > 0.004)
    mouth = np.broadcast_to(colour(0.20, 0.07, 0.07), picture.shape).copy()
    teeth = inside(v - line - gap * 0.25, edge) * inside(np.abs(x) - 0.8, 0.2)
    paint(mouth, teeth, colour(0.86, 0.83, 0.78) * (0.35 + 0.6 * light)[..., None])
    paint(picture, open_mouth, mouth)
    closed = np.exp(-(((v - line) / 0.014) ** 2)) * ends * (1 - open_mouth) * 0.8
    paint(picture, closed, look.lips * 0.16)
    for side in (-1.0, 1.0):
        picture *= (1 - 0.30 * bump(u, v, (side * look.mouth_width, 0.60 - 0.06 * look.smile), (0.04, 0.04)))[..., None]
    picture *= (1 - 0.18 * bump(u, v, (0, 0.745), (0.16, 0.035)))[..., None]


def draw_beard(rng: np.random.Generator, picture: Picture, look: Look, u: Plane, v: Plane, light: Plane, face: Plane) -> None:
    """Stubble or a full beard, moustache included; lips stay free."""
    density = float(rng.choice([0.35, 0.55, 0.9]))
    jaw = step(v + 0.55 * np.abs(u) ** 2, rng.uniform(0.42, 0.55), 0.72) * step(np.abs(u) + 0.9 * v, 0.55, 0.75)
    moustache = inside(ellipse(u, v, (0, 0.49), (look.mouth_width * 1.05, 0.055)), 0.05)
    mouth = inside(ellipse(u, v, (0, 0.61), (look.mouth_width * 0.95, look.lip_height * 1.05)), 0.04)
    hairs = np.clip(0.75 + 0.35 * noise(rng, u.shape, u.shape[1] / 1.7), 0, 1)
    mask = np.maximum(jaw, moustache) * (1 - mouth) * face * hairs * density
    paint(picture, mask, look.hair * 0.7 * (0.35 + 0.65 * light)[..., None])


def draw_glasses(rng: np.random.Generator, picture: Picture, u: Plane, v: Plane, edge: float) -> None:
    """Round or square frames with bridge and temples, a shadow, and a reflection on each lens."""
    power, width, height = float(rng.choice([2.0, 3.5, 6.0])), rng.uniform(0.20, 0.25), rng.uniform(0.14, 0.21)
    thick = rng.uniform(0.011, 0.030)
    frame_colour = pick_colour(rng, palette("141214 59331f b89e66 801a1f"), 0.01)
    tint, top = rng.uniform(0.02, 0.16), 0.03
    if rng.random() < 0.15:
        tint = 0.85  # sun glasses
    frame = np.zeros_like(u)
    for side in (-1.0, 1.0):
        x, y = np.abs(u - side * (EYE + 0.005)) / width, np.abs(v - top) / height
        distance = ((x**power + y**power) ** (1 / power) - 1) * height
        lens = inside(distance, edge)
        paint(picture, lens * tint, colour(0.16, 0.17, 0.18))
        streak = step(np.sin((u + 0.6 * v) * 9 + side), 0.75, 0.95) * lens * rng.uniform(0.02, 0.18)
        paint(picture, streak, colour(0.9, 0.95, 1.0))
        frame = np.maximum(frame, inside(np.abs(distance) - thick, edge))
    bridge = inside(np.abs(v - top + 0.06 - 0.25 * u * u) - thick, edge) * inside(np.abs(u) - EYE + width * 0.9, edge)
    outer = EYE + width * 0.97
    temple = inside(np.abs(v - top + 0.05) - thick, edge) * step(np.abs(u), outer, outer + 0.02) * (np.abs(u) < 0.80)
    frame = np.maximum(frame, np.maximum(bridge, temple))
    shadow = gaussian_filter(frame, 0.035 / edge * 1.5)
    picture *= (1 - 0.4 * np.roll(shadow, max(1, round(0.05 / edge * 1.5)), axis=0))[..., None]
    paint(picture, frame, frame_colour)
    paint(picture, frame * step(np.sin(u * 7 + v * 11), 0.7, 1.0) * 0.4, colour(0.9, 0.9, 0.9))
