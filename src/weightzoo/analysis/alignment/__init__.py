"""Git re-basin: the order of hidden units in which one network is most alike another.

Ainsworth, Hayase and Srinivasa 2023, "Git Re-Basin: Merging Models modulo Permutation Symmetries", arXiv 2209.04836.
"""

from weightzoo.analysis.alignment.activations import match_activations
from weightzoo.analysis.alignment.align import Aligned, align
from weightzoo.analysis.alignment.matching import Matching, distances, match_weights
from weightzoo.analysis.alignment.repair import repaired
from weightzoo.analysis.alignment.signs import odd_groups

__all__ = [
    "Aligned",
    "Matching",
    "align",
    "distances",
    "match_activations",
    "match_weights",
    "odd_groups",
    "repaired",
]
