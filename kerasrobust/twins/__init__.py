"""Faster copies of a network that compute the same function."""
