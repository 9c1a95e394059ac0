"""Stage 1, colours: a material's name and random numbers -> sRGB (3,); `model` paints parts."""

from __future__ import annotations

import numpy as np

# sRGB of 255, from everyday things; every draw moves a colour a little.
MATERIALS: dict[str, tuple[tuple[int, int, int], ...]] = {
    "wood": (
        (222, 184, 135), (193, 146, 92), (160, 110, 64), (128, 82, 48), (96, 60, 38), (72, 46, 32),
        (206, 163, 120), (176, 128, 84), (232, 208, 172), (146, 88, 60),
    ),
    "metal": (
        (190, 194, 200), (150, 154, 160), (110, 114, 120), (70, 73, 78), (205, 200, 190),
        (40, 42, 46), (184, 150, 96), (172, 116, 84),
    ),
    "steel": ((196, 200, 206), (172, 177, 184), (212, 214, 218), (150, 155, 162)),
    "fabric": (
        (92, 108, 130), (140, 76, 72), (104, 124, 96), (188, 176, 156), (120, 116, 112),
        (200, 152, 84), (66, 84, 110), (160, 124, 140), (224, 216, 202), (70, 68, 72),
        (78, 128, 132), (170, 96, 60),
    ),
    "linen": ((240, 238, 232), (228, 222, 212), (206, 214, 224), (232, 214, 208), (214, 222, 206)),
    "leather": ((110, 66, 42), (68, 44, 34), (40, 36, 36), (152, 100, 62), (180, 140, 104)),
    "plastic": (
        (214, 70, 58), (54, 116, 186), (70, 152, 92), (238, 184, 58), (240, 240, 238),
        (58, 60, 66), (232, 124, 52), (130, 92, 160), (92, 186, 190), (228, 136, 160),
    ),
    "dark": ((36, 38, 42), (52, 54, 58), (24, 26, 30), (66, 64, 66)),
    "rubber": ((38, 38, 40), (50, 50, 52), (30, 32, 36)),
    "light": ((238, 238, 236), (226, 228, 230), (216, 212, 204), (246, 244, 238)),
    "paint": (
        (186, 38, 40), (34, 78, 140), (236, 236, 238), (44, 46, 52), (150, 156, 162),
        (36, 98, 74), (232, 170, 44), (110, 34, 46), (206, 98, 40), (92, 140, 180),
    ),
    "ceramic": (
        (240, 238, 232), (198, 84, 66), (66, 104, 146), (96, 136, 112), (226, 190, 128),
        (58, 62, 72), (176, 126, 98), (150, 178, 190), (214, 148, 136),
    ),
    "glass": ((60, 110, 84), (112, 72, 44), (176, 206, 212), (70, 104, 140), (196, 214, 202)),
    "window": ((46, 56, 68), (62, 76, 90), (34, 42, 52), (88, 106, 122)),
    "leaf": ((72, 122, 62), (98, 142, 72), (52, 98, 60), (128, 152, 84)),
    "petal": (
        (222, 84, 96), (244, 196, 78), (236, 236, 240), (190, 110, 180), (240, 140, 90),
        (120, 130, 210),
    ),
    "brass": ((196, 158, 84), (176, 138, 70), (212, 176, 104)),
    "screen": ((26, 30, 38), (36, 58, 92), (20, 24, 28), (58, 84, 112), (44, 68, 72)),
    "lamplight": ((248, 236, 200), (244, 226, 176), (250, 244, 226)),
}  # fmt: skip


def draw_color(rng: np.random.Generator, *materials: str) -> np.ndarray:
    """A colour (3,) uint8 of one of the materials named, moved a little in light and tint."""
    palette = MATERIALS[materials[int(rng.integers(len(materials)))]]
    color = np.array(palette[int(rng.integers(len(palette)))], dtype=float)
    color = color * rng.uniform(0.88, 1.1) + rng.uniform(-7, 7, 3)
    return np.rint(np.clip(color, 8, 250)).astype(np.uint8)


def shade_of(color: np.ndarray, factor: float) -> np.ndarray:
    """A colour (3,) uint8 made darker (factor below 1) or lighter (above 1)."""
    value = color.astype(float)
    mixed = value * factor if factor <= 1 else 255 - (255 - value) / factor
    return np.rint(np.clip(mixed, 0, 255)).astype(np.uint8)
