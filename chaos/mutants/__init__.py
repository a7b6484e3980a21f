"""Planted bugs, each caught by a named invariant: the proof that the suite can fail.

planting   what a mutant is, and the hunt for it
logging_bugs, accepting, writing, reading, healing   the bugs

Why not change the product's code for it (a test build)? Nothing in the product may know that it is tested.
"""

from chaos.mutants import accepting, healing, logging_bugs, reading, writing
from chaos.mutants.planting import MUTANTS, Caught, Mutant, hunt

__all__ = [
    "MUTANTS", "Caught", "Mutant", "accepting", "healing", "hunt", "logging_bugs", "reading", "writing"
]  # fmt: skip
