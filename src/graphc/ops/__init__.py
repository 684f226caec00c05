"""Every operator, declared once.  Importing this package fills `Op.table`."""

from graphc.ops import activation, arithmetic, classification, comparison, contract, create, index, joining, loss, movement, norm, reduce, statistics, transcendental, views

__all__ = ["arithmetic", "comparison", "contract", "create", "joining", "movement", "reduce", "transcendental", "views"]
