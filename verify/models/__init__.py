"""STATEMENT. Models: which tensors, which norm, which epsilon, which tokens a claim is about."""

from verify.models.by_hand import ReadoutOverrides
from verify.models.model import Model, Source, competitor_count, load_again, load_model, load_named
from verify.models.tokens import Tokens

__all__ = [
    "Model",
    "ReadoutOverrides",
    "Source",
    "Tokens",
    "competitor_count",
    "load_again",
    "load_model",
    "load_named",
]
