"""One picture of several answers: cards with the prompt, the picture with its masks, and the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sa2va_host.masks import masks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sa2va_host import Segmentation

_CARD = 480
_GAP = 28
_MARGIN = 18
_PAPER = (241, 243, 246)
_INK = (28, 32, 40)
_FAINT = (106, 114, 128)


@dataclass(frozen=True)
class Card:
    """A prompt, its picture with the masks drawn on it (`[height, width, 3]`), and the answer's text."""

    prompt: str
    picture: NDArray[np.uint8]
    answer: str
    columns: int = 1
    """How many columns of the sheet it takes."""


def picture_with_masks(
    picture: NDArray[np.uint8], result: Segmentation | None, width: int, frame: int = 0
) -> NDArray[np.uint8]:
    """The picture `[height, width, 3]` at this width with its masks, drawn sharp at the new size."""
    height = round(picture.shape[0] * width / picture.shape[1])
    shown = np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS))
    if result is None or len(result) == 0:
        return shown
    logits = result.logits[:, frame : frame + 1]
    return masks.overlay(shown, masks.binarise(logits, result.image_size, (height, width))[:, 0])


def card_width(columns: int = 1) -> int:
    """The width of the picture of a card that takes so many columns, in pixels."""
    return columns * _CARD + (columns - 1) * _GAP - 2 * _MARGIN


def draw_sheet(title: str, subtitle: str, cards: Sequence[Card], columns: int = 3) -> NDArray[np.uint8]:
    """All cards in rows below a title, uint8 RGB `[height, width, 3]`."""
    rows = _rows(cards, columns)
    heights = [max(_card_height(card) for card in row) for row in rows]
    width = columns * _CARD + (columns + 1) * _GAP
    top = 128
    sheet = Image.new("RGB", (width, top + sum(heights) + _GAP * len(rows)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP + 4, 30), title, font=_font(38), fill=_INK)
    draw.text((_GAP + 4, 82), subtitle, font=_font(21), fill=_FAINT)
    for row, height in zip(rows, heights, strict=True):
        left = _GAP
        for card in row:
            _draw_card(sheet, draw, card, (left, top), height)
            left += card.columns * (_CARD + _GAP)
        top += height + _GAP
    return np.asarray(sheet)


def _rows(cards: Sequence[Card], columns: int) -> list[list[Card]]:
    rows: list[list[Card]] = [[]]
    for card in cards:
        if sum(other.columns for other in rows[-1]) + card.columns > columns:
            rows.append([])
        rows[-1].append(card)
    return rows


def _card_height(card: Card) -> int:
    answer = _wrapped(card.answer, card_width(card.columns))
    return _MARGIN + 44 + len(card.picture) + 14 + 28 * len(answer) + _MARGIN - 4


def _draw_card(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, card: Card, place: tuple[int, int], height: int
) -> None:
    left, top = place
    right = left + card_width(card.columns) + 2 * _MARGIN
    draw.rounded_rectangle((left, top, right, top + height), radius=14, fill="white", outline=(224, 228, 234))
    draw.text((left + _MARGIN, top + _MARGIN - 2), f"“{card.prompt}”", font=_font(25), fill=_INK)
    picture_top = top + _MARGIN + 44
    sheet.paste(Image.fromarray(card.picture), (left + _MARGIN, picture_top))
    line_top = picture_top + card.picture.shape[0] + 14
    for line in _wrapped(card.answer, card_width(card.columns)):
        draw.text((left + _MARGIN, line_top), line, font=_font(22), fill=_FAINT)
        line_top += 28


def _wrapped(text: str, width: int) -> list[str]:
    """The text in lines that fit into `width` pixels."""
    font = _font(22)
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, so that the sheet looks the same everywhere."""
    return ImageFont.load_default(size)
