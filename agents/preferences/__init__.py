"""Rewards from preferences: somebody says which of two clips is better, and a model learns what they go by.

Christiano et al., Deep reinforcement learning from human preferences, 2017 (arXiv 1706.03741).
"""
