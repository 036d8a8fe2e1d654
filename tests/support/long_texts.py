"""Long texts on which a careless parser takes quadratic time."""

LONG_TEXTS = [
    "<" + " " * 50_000,
    "< step" + " " * 50_000,
    "<step_" * 10_000,
    "<" * 50_000,
    "[" + " " * 50_000,
    "\\[" * 30_000 + "\\]",
    "\\( x " * 15_000 + "\\)",
    "$$\n\n" * 15_001,
    "\\begin{align}" * 5_000,
    "\n" * 60_000 + "x",
    " " * 60_000 + "1. x",
    "<|" + "a" * 60_000,
    "<|aa" * 20_000,
]
