"""Rigorous answers about which tokens a language model can and cannot say."""

__version__ = "0.1.0"
