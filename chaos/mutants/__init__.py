"""Planted bugs, each caught by a named invariant: the proof that the suite can fail.

planting   what a mutant is, and the hunt for it
logging_bugs, accepting, writing, reading, healing, moving, hiding, rare, splitting   the bugs

Why not change the product's code for it (a test build)? Nothing in the product may know that it is tested.
"""

from chaos.mutants import (
    accepting,
    healing,
    hiding,
    logging_bugs,
    moving,
    rare,
    reading,
    splitting,
    writing,
)
from chaos.mutants.planting import MUTANTS, Caught, Mutant, hunt

__all__ = [
    "MUTANTS", "Caught", "Mutant", "accepting", "healing", "hiding", "hunt", "logging_bugs", "moving",
    "rare", "reading", "splitting", "writing",
]  # fmt: skip
