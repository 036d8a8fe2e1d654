"""Colours of the pages and plots."""

from __future__ import annotations

PALETTE = {
    "orange": ("#d98200", "#f0a83c"),
    "blue": ("#0068b8", "#5db5f5"),
    "pink": ("#b8518f", "#e08cc0"),
    "green": ("#00856a", "#35c9a5"),
    "red": ("#d04a02", "#ff8a4c"),
    "sky": ("#3f9fd0", "#8fd0f0"),
    "violet": ("#7355c8", "#aa97f2"),
    "grey": ("#6d7683", "#9aa5b3"),
    "ink": ("#3b4350", "#c3cad4"),
    "grid": ("#e3e6eb", "#2c333d"),
}
"""Name -> (color on light, color on dark). Colour-blind readers can distinguish them (after Okabe and Ito)."""
