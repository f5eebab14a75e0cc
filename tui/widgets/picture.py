"""Images in a terminal: half-block cells in true colour, shades where there are no colours to mix."""

from __future__ import annotations

import textwrap
from functools import lru_cache
from typing import TYPE_CHECKING

from rich.color import Color
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip
from textual.widget import Widget

if TYPE_CHECKING:
    import numpy as np

SHADES = " .:-=+*#%@"
"""From background to foreground: ten steps show shapes where the five of the block characters show one grey."""

_HALF = "▀"
_MIXED = ("256", "truecolor")  # Names of Rich's colour systems with enough colours for a picture.
_CHANNELS = (1, 3, 4)
_LUMINANCE = (0.2126, 0.7152, 0.0722)  # Of sRGB's primaries, ITU-R BT.709.


def fit(height: int, width: int, columns: int, rows: int) -> tuple[int, int]:
    """Returns height and width in pixels at which an image is drawn in a room of columns (one pixel) and rows (two).

    They are the same whole multiple of its own, or what there is room for, and at least 1.

    Example:
        >>> fit(32, 32, 100, 40), fit(32, 32, 26, 40)
        ((64, 64), (26, 26))
    """
    scale = min(columns / width, 2 * rows / height)
    if scale >= 1:
        return height * int(scale), width * int(scale)
    # The quotient may fall a rounding short of a whole number.
    return max(1, int(height * scale + 1e-6)), max(1, int(width * scale + 1e-6))


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Returns an image (H, W, C) in another size: pixels repeated in a multiple of its own, else averaged by area."""
    import numpy as np

    if height % image.shape[0] == 0 and width % image.shape[1] == 0:
        return image.repeat(height // image.shape[0], axis=0).repeat(width // image.shape[1], axis=1)
    down, across = _overlaps(image.shape[0], height), _overlaps(image.shape[1], width)
    return np.einsum("ij,jkc,lk->ilc", down, image, across, optimize=True)


def _overlaps(before: int, after: int) -> np.ndarray:
    """Returns the share that each of `before` pixels has in each of `after` that cover the same length."""
    import numpy as np

    ends = np.linspace(0, before, after + 1)
    pixels = np.arange(before)
    shared = np.minimum(ends[1:, None], pixels + 1) - np.maximum(ends[:-1, None], pixels)
    return shared.clip(0) * after / before


class Picture(Widget):
    """An image, as large as there is room for, centred; a row of cells is two rows of pixels.

    Example:
        >>> picture = Picture()
        >>> picture.show(np.zeros((32, 32, 3), np.float32))
    """

    ALLOW_SELECT = False

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._image: np.ndarray | None = None
        self._strips: list[Strip] | None = None
        self._drawn: object = None

    def show(self, image: np.ndarray | None) -> None:
        """Shows an image: float32 (H, W, C) in [0, 1], grey (C = 1), RGB or RGBA; nothing for None."""
        self._image = image
        self._strips = None
        self.refresh()

    def render_line(self, y: int) -> Strip:
        style = self.rich_style
        # A change of the theme changes the ground; that of the size, all.
        now = (self.size, style, self.app.current_theme.dark)
        if self._strips is None or self._drawn != now:
            self._drawn = now
            self._strips = self._draw()
        return self._strips[y] if y < len(self._strips) else Strip.blank(self.size.width, style)

    def _draw(self) -> list[Strip]:
        image, (columns, rows), ground = self._image, self.size, self.rich_style
        if image is None or not columns or not rows:
            return []
        if image.ndim != 3 or image.shape[2] not in _CHANNELS or 0 in image.shape:
            words = f"No picture of an image of shape {image.shape}: 1, 3 or 4 channels can be shown."
            lines = [[Segment(line, ground)] for line in textwrap.wrap(words, columns)]
        else:
            pixels = self._pixels(resize(image, *fit(image.shape[0], image.shape[1], columns, rows)))
            lines = self._in_colours(pixels) if self._mixes else self._in_shades(pixels)
        strips = []
        for segments in lines:
            strip = Strip(segments)
            before = (columns - strip.cell_length) // 2
            strips.append(Strip([Segment(" " * before, ground), *strip]).adjust_cell_length(columns, ground))
        return strips

    @property
    def _mixes(self) -> bool:
        return not self.app.no_color and self.app.console.color_system in _MIXED

    def _pixels(self, image: np.ndarray) -> np.ndarray:
        """Returns an image of 1, 3 or 4 channels as float (H, W, 3) in [0, 1]; what is transparent shows the ground."""
        import numpy as np

        pixels = np.nan_to_num(image).clip(0, 1)
        if pixels.shape[2] == 4:
            ground = np.array(self.background_colors[1].normalized)
            return ground + (pixels[..., :3] - ground) * pixels[..., 3:]
        return np.broadcast_to(pixels, (*pixels.shape[:2], 3))

    def _in_colours(self, pixels: np.ndarray) -> list[list[Segment]]:
        import numpy as np

        values = np.rint(pixels * 255).astype(int).tolist()
        lines = []
        for place in range(0, len(values), 2):
            uppers, lowers = values[place], values[place + 1] if place + 1 < len(values) else []
            if lowers:
                pairs = zip(uppers, lowers, strict=True)
                lines.append([Segment(_HALF, _cell(*upper, *lower)) for upper, lower in pairs])
            else:
                lines.append([Segment(_HALF, self.rich_style + _cell(*upper)) for upper in uppers])
        return lines

    def _in_shades(self, pixels: np.ndarray) -> list[list[Segment]]:
        import numpy as np

        luminance = pixels @ np.array(_LUMINANCE)
        pairs = np.add.reduceat(luminance, range(0, len(luminance), 2), axis=0)
        pairs[: len(luminance) // 2] /= 2
        if not self.app.current_theme.dark:  # There the background is what is bright.
            pairs = 1 - pairs
        shades = np.array(list(SHADES))[np.rint(pairs * (len(SHADES) - 1)).astype(int)]
        return [[Segment("".join(row), self.rich_style)] for row in shades]


@lru_cache(maxsize=8192)
def _cell(red: int, green: int, blue: int, *lower: int) -> Style:
    ground = Color.from_rgb(lower[0], lower[1], lower[2]) if lower else None
    return Style(color=Color.from_rgb(red, green, blue), bgcolor=ground)
