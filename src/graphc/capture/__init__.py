"""Eager code as graphs: what it computes, what it writes, and which gradients it sets."""
