"""Hair of a demo portrait: styles, strands and shine."""

from __future__ import annotations

import numpy as np

from training.demo.canvas import Colour, Picture, Plane, bump, clouds, inside, noise, paint, step

STYLES = ("short", "short", "side", "bob", "long", "long", "curly", "receding", "shaved", "bald", "bun")


class Hair:
    """One head of hair: painted in two goes, behind the head and over the forehead."""

    def __init__(self, rng: np.random.Generator, u: Plane, v: Plane, tint: Colour, edge: float) -> None:
        self.style = str(rng.choice(STYLES))
        self.u, self.v, self.edge = u, v, edge
        waves = clouds(rng, u.shape, 6, 2)
        curl = {"curly": 1.0, "bob": 0.25, "long": 0.35}.get(self.style, 0.12) * rng.uniform(0.6, 1.3)
        angle = np.arctan2(u, -(v + 0.25)) + 0.05 * curl * waves
        strand = rng.standard_normal(4096).astype(np.float32)
        streaks = sum(
            strand[((angle + 4) * frequency).astype(np.int32) % 4096] * weight for frequency, weight in ((70, 0.5), (23, 0.5))
        )
        lumps = clouds(rng, u.shape, 22, 2) * curl
        tone = 1 + (0.15 * streaks if self.style != "curly" else 0.08 * streaks) + 0.30 * lumps
        radius = np.hypot(u, (v + 0.2) * 0.9)
        shine = np.exp(-(((radius - rng.uniform(0.62, 0.75)) / 0.10) ** 2)) * step(-v, 0.1, 0.5) * rng.uniform(0.1, 0.9)
        tone = np.clip(tone, 0.25, 2) * (0.75 + shine * (0.7 + 0.4 * streaks))
        self.picture = np.asarray(tint * tone[..., None] + 0.015 * shine[..., None], np.float32)
        self.volume = {"curly": rng.uniform(0.18, 0.36), "shaved": 0.015, "bald": 0.0, "receding": 0.05}.get(
            self.style, rng.uniform(0.06, 0.16)
        )
        self.rough = 0.05 * curl * noise(rng, u.shape, 24)
        self.line = rng.uniform(-0.68, -0.50)
        self.part = rng.uniform(-0.35, 0.35)
        self.fringe = self.style in ("bob", "long", "short", "bun") and rng.random() < 0.35
        self.length = {"bob": rng.uniform(0.6, 1.0), "long": rng.uniform(1.3, 2.4), "curly": rng.uniform(0.2, 1.1)}.get(
            self.style, 0.0
        )
        self.ragged = 0.018 * noise(rng, u.shape, 60)

    def _outline(self, head: Plane, extra: float) -> Plane:
        return head - self.volume - extra + self.rough

    def draw_behind(self, picture: Picture, head: Plane) -> None:
        """What hangs behind the neck, for `head` the signed distance to the head's outline."""
        if self.style == "bun":
            knot = np.hypot(self.u, self.v + 1.22) - 0.26 + self.rough
            paint(picture, inside(knot, 2 * self.edge), self.picture * 0.8)
        if self.length:
            width = 0.78 + self.volume * (1.0 + 0.5 * step(self.v, -0.3, 0.8))
            fall = np.maximum(np.abs(self.u) - width + self.rough, self.v - self.length + self.ragged)
            fall = np.where(self.v < -0.25, self._outline(head, 0.02), fall)
            paint(picture, inside(fall, 2 * self.edge), self.picture * 0.55)

    def draw_front(self, picture: Picture, head: Plane, light: Plane) -> None:
        """What covers the skull and the forehead."""
        if self.style == "bald":
            return
        u, v = self.u, self.v
        temples = {"receding": 0.02, "shaved": 0.16}.get(self.style, 0.10)
        line = self.line + 0.9 * np.clip(np.abs(u) - 0.42, 0, None) ** 1.2 + self.ragged
        if self.style == "receding":
            line = line - 0.22 * (1 - bump(u, v * 0, (0, 0), (0.22, 1)))
        elif self.fringe:
            line = line + 0.26 * step(0.62 - np.abs(u), 0, 0.2) + 0.03 * np.sin(u * 34)
        elif self.style in ("side", "long", "bob"):
            line = line + 0.22 * step(np.abs(u - self.part), 0.05, 0.75)
        sides = np.abs(u) > 0.70 - temples * step(-v, -0.3, 0.5)
        reach = 0.28 if self.length == 0 else min(self.length, 1.0)
        mask = inside(self._outline(head, 0), 2 * self.edge)
        mask = mask * np.maximum(step(line - v, -0.02, 0.03), sides * step(reach - v, 0, 0.12))
        if self.style in ("shaved", "receding"):
            mask = mask * (0.6 if self.style == "shaved" else 0.9)
        paint(picture, mask, self.picture * (0.35 + 0.65 * light)[..., None])
