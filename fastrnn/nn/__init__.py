"""Recurrent layers as modules on NumPy arrays: stacked, in both directions, with state."""
