"""Model identity: which model a checkpoint was made from, and which models are the same."""

from weightzoo.analysis.identity.duplicates import duplicates
from weightzoo.analysis.identity.gallery import Gallery
from weightzoo.analysis.identity.perturbations import noisy, pruned, shuffled

__all__ = ["Gallery", "duplicates", "noisy", "pruned", "shuffled"]
