"""Rigorous answers about which tokens a language model can and cannot say."""
