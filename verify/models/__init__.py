"""STATEMENT. Models: which tensors, which norm, which epsilon, which tokens a claim is about."""

from verify.models.by_hand import ReadoutOverrides
from verify.models.model import Model, load_model
from verify.models.tokens import Tokens

__all__ = ["Model", "ReadoutOverrides", "Tokens", "load_model"]
