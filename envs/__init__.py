"""Environments: the dreams, and the real ones they are learned from."""
