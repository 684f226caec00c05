"""Every operator, declared once.  Importing this package fills `Op.table`."""

from graphc.ops import (
    activation,
    arithmetic,
    attention,
    classification,
    comparison,
    contract,
    create,
    index,
    joining,
    loss,
    movement,
    norm,
    random,
    reduce,
    statistics,
    transcendental,
    views,
)

__all__ = [
    "activation", "arithmetic", "attention", "classification", "comparison", "contract", "create", "index", "joining", "loss",
    "movement", "norm", "random", "reduce", "statistics", "transcendental", "views",
]  # fmt: skip
