"""Portrait: a person drawn with code, lit from one side, in front of a backdrop."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from training.demo.backdrop import draw_backdrop, draw_clothes
from training.demo.canvas import (
    Picture,
    Plane,
    bump,
    clouds,
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
from training.demo.features import EYE, Look, draw_beard, draw_brows, draw_eyes, draw_glasses, draw_mouth, draw_nose
from training.demo.hair import Hair

SKINS = palette("f2ccb5 e6b89c d6a685 bf8c6b 9e6e4f 7a523b 5c3d2e")
HAIRS = palette("1a1414 33211a 523624 7a5230 b89461 944224 9e9994 d9d6d1")
IRISES = palette("472b1a 664524 596b3d 6185a3 738085")


@dataclass(frozen=True)
class Pose:
    """Where the head is and where it looks; lengths in half pictures, angles in radians."""

    scale: float
    x: float
    y: float
    roll: float
    yaw: float
    pitch: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Pose:
        """A pose as people hold their heads for a portrait, framed by hand."""
        return cls(
            scale=rng.uniform(0.58, 0.76),
            x=rng.uniform(-0.10, 0.10),
            y=rng.uniform(-0.10, 0.04),
            roll=rng.normal(0, 0.09),
            yaw=float(np.clip(rng.normal(0, 0.18), -0.38, 0.38)),
            pitch=float(np.clip(rng.normal(0, 0.08), -0.18, 0.18)),
        )

    def near(self, rng: np.random.Generator) -> Pose:
        """A pose that someone else's face could be cut out of and laid over this one, not quite fitting."""
        return replace(
            self,
            scale=self.scale * rng.uniform(0.8, 1.25),
            x=self.x + rng.normal(0, 0.05),
            y=self.y + rng.normal(0, 0.05),
            roll=self.roll + rng.normal(0, 0.12),
        )

    def head(self, size: int) -> tuple[Plane, Plane]:
        """Coordinates of each pixel on the head seen as a disc: 0 at its middle, 1 at the chin. float32[size, size] each."""
        axis = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32(2 / size) - 1
        x, y = (axis[None, :] - self.x) / self.scale, (axis[:, None] - self.y) / self.scale
        cos, sin = np.float32(np.cos(self.roll)), np.float32(np.sin(self.roll))
        return x * cos + y * sin, y * cos - x * sin


def draw_portrait(rng: np.random.Generator, pose: Pose, size: int) -> Picture:
    """A fresh person in that pose: linear light, float32[size, size, 3]."""
    axis = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32(2 / size) - 1
    x, y = np.broadcast_to(axis[None, :], (size, size)), np.broadcast_to(axis[:, None], (size, size))
    edge = float(2.6 / (size * pose.scale))
    hu, hv = pose.head(size)
    look = _draw_look(rng)
    width, jaw, power = rng.uniform(0.70, 0.80), rng.uniform(0.10, 0.34), rng.uniform(2.1, 2.5)
    head = _head_distance(hu, hv, width, jaw, power)
    u, v, depth = _face_coordinates(hu, hv, width, pose)
    hair = Hair(rng, hu - 0.25 * pose.yaw, hv, look.hair, edge)

    picture = draw_backdrop(rng, x, y)
    hair.draw_behind(picture, head)
    draw_clothes(rng, picture, (x - pose.x * 0.8) / pose.scale, (y - pose.y) / pose.scale, edge, look.skin)
    mask = inside(head, edge)
    light, gloss = _light(rng, _relief(u, v, depth, look), pose, size)
    _draw_ears(picture, look, hu, hv, width, light, edge)
    paint(picture, mask, _skin(rng, look, u, v, light, gloss))
    here = window(mask > 0)
    face = (look, u[here], v[here])
    over = picture[here].copy()
    draw_nose(over, *face, edge)
    draw_mouth(rng, over, *face, light[here], edge)
    if rng.random() < 0.22:
        draw_beard(rng, over, *face, light[here], mask[here])
    draw_eyes(rng, over, *face, light[here], edge)
    draw_brows(rng, over, *face, light[here], edge)
    paint(picture[here], mask[here], over)
    hair.draw_front(picture, head, light)
    if rng.random() < 0.22:
        draw_glasses(rng, picture, u, v, edge)
    return np.clip(picture, 0, 4)


def _draw_look(rng: np.random.Generator) -> Look:
    tone = rng.integers(len(SKINS))
    skin = pick_colour(rng, SKINS[tone : tone + 1], 0.02)
    darkest = 3 if tone > 3 else len(HAIRS)
    return Look(
        skin=skin,
        hair=pick_colour(rng, HAIRS[:darkest] if rng.random() < 0.85 else HAIRS[-2:], 0.015),
        iris=pick_colour(rng, IRISES[:2] if tone > 3 else IRISES, 0.02),
        lips=np.asarray(skin * rng.uniform(0.55, 0.85) * (colour(1.0, 0.62, 0.64) ** rng.uniform(0.3, 1.0)), np.float32),
        eye_height=rng.uniform(0.062, 0.100),
        brow_height=rng.uniform(0.16, 0.22),
        brow_weight=rng.uniform(0.016, 0.042),
        nose_width=rng.uniform(0.11, 0.165),
        mouth_width=rng.uniform(0.21, 0.30),
        lip_height=rng.uniform(0.04, 0.085),
        smile=rng.uniform(-0.3, 1.0),
        gaze=(rng.normal(0, 0.02), rng.normal(0, 0.008)),
    )


def _head_distance(u: Plane, v: Plane, width: float, jaw: float, power: float) -> Plane:
    """Signed distance to the outline: a rounded oval that narrows to the chin."""
    half = width * (1 - jaw * step(v, 0.05, 1.0))
    return (((np.abs(u) / half) ** power + np.abs(v) ** power) ** (1 / power) - 1) * np.float32(width)


def _face_coordinates(u: Plane, v: Plane, width: float, pose: Pose) -> tuple[Plane, Plane, Plane]:
    """Coordinates on the face after turning the head as an ellipsoid, and the depth of each point."""
    px, py = u / np.float32(width * 1.08), v / np.float32(1.08)
    depth = np.sqrt(np.clip(1 - px * px - py * py, 0.02, 1))
    cos, sin = np.cos(np.float32(pose.yaw)), np.sin(np.float32(pose.yaw))
    turned, inner = px * cos - depth * sin, depth * cos + px * sin
    cos, sin = np.cos(np.float32(pose.pitch)), np.sin(np.float32(pose.pitch))
    return turned * np.float32(width * 1.08), (py * cos - inner * sin) * np.float32(1.08), depth


def _relief(u: Plane, v: Plane, depth: Plane, look: Look) -> Plane:
    """Height of the skin: skull, sockets, brow, nose, cheeks, lips, chin."""
    relief = 0.70 * depth
    ridge = np.exp(-((u / (0.05 + look.nose_width * 0.75 * step(v, 0.0, 0.34))) ** 2))
    relief = relief + 0.27 * ridge * (0.25 + 0.75 * step(v, -0.10, 0.33)) * step(v, -0.30, -0.05) * (1 - step(v, 0.34, 0.44))
    for side in (-1.0, 1.0):
        relief = relief - 0.085 * bump(u, v, (side * (EYE - 0.04), 0.0), (0.19, 0.12))
        relief = relief + 0.035 * bump(u, v, (side * EYE, -0.19), (0.22, 0.07))
        relief = relief + 0.075 * bump(u, v, (side * 0.40, 0.27), (0.18, 0.15))
        relief = relief + 0.05 * bump(u, v, (side * look.nose_width * 0.75, 0.34), (0.055, 0.06))
        fold = np.abs(side * u - 0.17 - 0.30 * (v - 0.36)) / 0.04
        relief = relief - 0.012 * (1 + 0.8 * look.smile) * np.exp(-(fold**2)) * step(v, 0.34, 0.42) * (1 - step(v, 0.58, 0.68))
    relief = relief + 0.05 * bump(u, v, (0, 0.60), (0.24, 0.09)) + 0.07 * bump(u, v, (0, 0.86), (0.17, 0.10))
    return relief - 0.012 * bump(u, v, (0, 0.48), (0.035, 0.06))


def _light(rng: np.random.Generator, relief: Plane, pose: Pose, size: int) -> tuple[Plane, Plane]:
    """Diffuse shading (about 1 where lit) and gloss, for a soft key light and the sky."""
    spacing = 2 / (size * pose.scale)
    down, across = np.gradient(relief, spacing)
    length = np.sqrt(1 + across * across + down * down)
    key = np.asarray([rng.uniform(-0.9, 0.9), rng.uniform(-0.9, 0.15), 1.0])
    key = key / np.linalg.norm(key)
    facing = (-across * key[0] - down * key[1] + key[2]) / length
    ambient, strength = rng.uniform(0.12, 0.40), rng.uniform(0.80, 1.15)
    sky = 0.5 + 0.5 * down / length
    light = ambient * (1.15 - 0.5 * sky) + strength * np.clip((facing + 0.15) / 1.15, 0, 1)
    half = key + np.asarray([0, 0, 1])
    half = half / np.linalg.norm(half)
    mirror = np.clip((-across * half[0] - down * half[1] + half[2]) / length, 0, 1)
    return np.asarray(light, np.float32), np.asarray(mirror ** rng.uniform(18, 40), np.float32)


def _skin(rng: np.random.Generator, look: Look, u: Plane, v: Plane, light: Plane, gloss: Plane) -> Picture:
    """Lit skin with blush, pores and freckles; shadows turn warm, as light scatters below the skin."""
    size = u.shape[0]
    albedo = np.broadcast_to(look.skin, (size, size, 3)) * (1 + 0.05 * clouds(rng, u.shape, 9, 3))[..., None]
    albedo = albedo * (1 + 0.03 * noise(rng, u.shape, size / 2))[..., None]
    blush = rng.uniform(0.0, 0.30)
    cheeks = bump(u, v, (-0.40, 0.30), (0.20, 0.16)) + bump(u, v, (0.40, 0.30), (0.20, 0.16))
    red = cheeks + 0.7 * bump(u, v, (0, 0.32), (0.14, 0.10))
    albedo = albedo * (1 - blush * red[..., None] * np.asarray([0.05, 0.65, 0.55], np.float32))
    if rng.random() < 0.12:
        spots = step(noise(rng, u.shape, min(size / 2, 90)), 1.2, 1.8)
        spots = spots * (1 - step(np.abs(v - 0.2), 0.15, 0.4)) * step(0.6 - np.abs(u), 0, 0.2)
        albedo = albedo * (1 - 0.45 * spots[..., None])
    warm = np.clip(light, 0.02, 2)[..., None] ** np.asarray([0.85, 1.05, 1.12], np.float32)
    oil = rng.uniform(0.02, 0.16)
    return np.asarray(albedo * warm + oil * gloss[..., None], np.float32)


def _draw_ears(picture: Picture, look: Look, u: Plane, v: Plane, width: float, light: Plane, edge: float) -> None:
    shade = look.skin * (0.35 + 0.45 * np.clip(light, 0, 1))[..., None]
    for side in (-1.0, 1.0):
        ear = ellipse(u, v, (side * width * 0.99, 0.10), (0.11, 0.20))
        paint(picture, inside(ear, edge), np.asarray(shade, np.float32))
        paint(picture, inside(ear + 0.05, 2 * edge) * 0.5, look.skin * 0.3)
