"""Every operator, declared once.  Importing this package fills `Op.table`."""

from graphc.ops import arithmetic, comparison, contract, create, index, joining, movement, reduce, statistics, transcendental, views

__all__ = ["arithmetic", "comparison", "contract", "create", "joining", "movement", "reduce", "transcendental", "views"]
