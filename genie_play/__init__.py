"""Genie Play: a game client whose worlds are generated frame by frame by a neural network."""

__version__ = "0.1.0"
