"""Eager execution: tensors, their operators, the tape."""
