"""Nested values as flat lists of leaves and a structure, under the names of ``torch.utils._pytree``.

Enters: containers, and classes that users register.  Leaves: leaves and `TreeSpec`s.  Everything that is no registered container
is a leaf, None too.  Never here: structures that are hashed and written to files (`graphc.trees`, which knows registered classes
as well).
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from graphc import trees

PyTree = Any
Context = Any
_FLATTEN = Callable[[Any], tuple[list[Any], Context]]
_UNFLATTEN = Callable[[Iterable[Any], Context], Any]


class NodeDef(NamedTuple):
    """How a container is taken apart and put together."""

    type: Any
    flatten_fn: _FLATTEN
    unflatten_fn: _UNFLATTEN


def _mapping(make: Callable[[Any], Any]) -> tuple[_FLATTEN, _UNFLATTEN]:
    return lambda d: (list(d.values()), list(d)), lambda values, keys: make(zip(keys, values, strict=True))


SUPPORTED_NODES: dict[type, NodeDef] = {
    dict: NodeDef(dict, *_mapping(dict)),
    OrderedDict: NodeDef(OrderedDict, *_mapping(OrderedDict)),
    list: NodeDef(list, lambda x: (list(x), None), lambda values, _: list(values)),
    tuple: NodeDef(tuple, lambda x: (list(x), None), lambda values, _: tuple(values)),
    namedtuple: NodeDef(namedtuple, lambda x: (list(x), type(x)), lambda values, kind: kind(*values)),  # type: ignore[dict-item]
    defaultdict: NodeDef(
        defaultdict,
        lambda d: (list(d.values()), [d.default_factory, list(d)]),
        lambda values, context: defaultdict(context[0], zip(context[1], values, strict=True)),
    ),
    deque: NodeDef(deque, lambda d: (list(d), d.maxlen), lambda values, length: deque(values, maxlen=length)),
}


def register_pytree_node(cls: type, flatten_fn: _FLATTEN, unflatten_fn: _UNFLATTEN, **_: Any) -> None:
    """Make a class a container: ``flatten_fn(x)`` gives (children, context), ``unflatten_fn(children, context)`` the value again.

    Raises ValueError for a class that is registered already.
    """
    if cls in SUPPORTED_NODES:
        raise ValueError(f"{cls} is already registered as pytree node.")
    SUPPORTED_NODES[cls] = NodeDef(cls, flatten_fn, unflatten_fn)
    trees.register(cls, flatten_fn, unflatten_fn)


_register_pytree_node = _private_register_pytree_node = register_pytree_node


def is_namedtuple(x: object) -> bool:
    """Whether x is a named tuple."""
    return isinstance(x, tuple) and hasattr(x, "_fields")


is_namedtuple_instance = is_namedtuple


def _get_node_type(tree: Any) -> Any:
    return namedtuple if is_namedtuple(tree) and type(tree) not in SUPPORTED_NODES else type(tree)


def tree_is_leaf(tree: PyTree, is_leaf: Callable[[Any], bool] | None = None) -> bool:
    """Whether a value is no container (or is one that `is_leaf` takes for a leaf)."""
    return (is_leaf is not None and is_leaf(tree)) or _get_node_type(tree) not in SUPPORTED_NODES


_is_leaf = tree_is_leaf


class TreeSpec:
    """A structure.  type: of the container, None for a leaf.   context: what its `flatten_fn` gave.   children_specs: in order."""

    num_nodes: int
    num_leaves: int

    def __init__(self, type: Any, context: Context, children_specs: list[TreeSpec]) -> None:
        self.type, self.context, self.children_specs = type, context, children_specs
        leaf = type is None
        self.num_nodes = 1 + sum(c.num_nodes for c in children_specs)
        self.num_leaves = 1 if leaf else sum(c.num_leaves for c in children_specs)
        self.num_children = len(children_specs)

    def is_leaf(self) -> bool:
        return self.type is None

    def children(self) -> list[TreeSpec]:
        return list(self.children_specs)

    def child(self, index: int) -> TreeSpec:
        return self.children_specs[index]

    def unflatten(self, leaves: Iterable[Any]) -> PyTree:
        """The nested value.  Raises ValueError for another number of leaves."""
        given = list(leaves)
        if len(given) != self.num_leaves:
            text = f"treespec.unflatten(leaves): `leaves` has length {len(given)} but the spec refers to a pytree that holds"
            raise ValueError(f"{text} {self.num_leaves} items ({self}).")
        if self.is_leaf():
            return given[0]
        parts, start = [], 0
        for child in self.children_specs:
            parts.append(child.unflatten(given[start : start + child.num_leaves]))
            start += child.num_leaves
        return SUPPORTED_NODES[self.type].unflatten_fn(parts, self.context)

    def flatten_up_to(self, tree: PyTree) -> list[Any]:
        """The parts of `tree` where this structure has leaves.  Raises ValueError where it is another structure."""
        if self.is_leaf():
            return [tree]
        if _get_node_type(tree) is not self.type:
            raise ValueError(f"Type mismatch; expected {self.type!r}, but got {type(tree)!r}.")
        children, context = SUPPORTED_NODES[self.type].flatten_fn(tree)
        if len(children) != self.num_children or context != self.context:
            raise ValueError(f"Node mismatch; expected {self}, but got {len(children)} children and context {context!r}.")
        return [leaf for child, spec in zip(children, self.children_specs, strict=True) for leaf in spec.flatten_up_to(child)]

    def __eq__(self, other: object) -> bool:
        mine = (self.type, self.context, self.children_specs)
        return isinstance(other, TreeSpec) and mine == (other.type, other.context, other.children_specs)

    def __hash__(self) -> int:
        return hash((self.type, tuple(self.children_specs)))

    def __repr__(self) -> str:
        if self.is_leaf():
            return "*"
        return f"TreeSpec({self.type.__name__}, {self.context}, [{', '.join(map(repr, self.children_specs))}])"


class LeafSpec(TreeSpec):
    """The structure of a leaf."""

    def __init__(self) -> None:
        super().__init__(None, None, [])


def tree_flatten(tree: PyTree, is_leaf: Callable[[Any], bool] | None = None) -> tuple[list[Any], TreeSpec]:
    """(the leaves in order, the structure)."""
    leaves: list[Any] = []

    def walk(node: Any) -> TreeSpec:
        if tree_is_leaf(node, is_leaf):
            leaves.append(node)
            return LeafSpec()
        kind = _get_node_type(node)
        children, context = SUPPORTED_NODES[kind].flatten_fn(node)
        return TreeSpec(kind, context, [walk(child) for child in children])

    spec = walk(tree)
    return leaves, spec


def tree_unflatten(leaves: Iterable[Any], treespec: TreeSpec) -> PyTree:
    """The value of that structure with those leaves."""
    return treespec.unflatten(leaves)


def tree_leaves(tree: PyTree, is_leaf: Callable[[Any], bool] | None = None) -> list[Any]:
    """The leaves in order."""
    return tree_flatten(tree, is_leaf)[0]


def tree_iter(tree: PyTree, is_leaf: Callable[[Any], bool] | None = None) -> Iterable[Any]:
    """The leaves in order, one by one."""
    return iter(tree_leaves(tree, is_leaf))


def tree_structure(tree: PyTree, is_leaf: Callable[[Any], bool] | None = None) -> TreeSpec:
    """The structure alone."""
    return tree_flatten(tree, is_leaf)[1]


def tree_map(func: Callable[..., Any], tree: PyTree, *rests: PyTree, is_leaf: Callable[[Any], bool] | None = None) -> PyTree:
    """The tree with each leaf replaced with ``func(leaf, *leaves of the other trees)``."""
    leaves, spec = tree_flatten(tree, is_leaf)
    columns = [leaves, *(spec.flatten_up_to(rest) for rest in rests)]
    return spec.unflatten([func(*row) for row in zip(*columns, strict=True)])


def tree_map_(func: Callable[..., Any], tree: PyTree, *rests: PyTree, is_leaf: Callable[[Any], bool] | None = None) -> PyTree:
    """`tree_map` for what `func` does; gives the tree itself."""
    tree_map(func, tree, *rests, is_leaf=is_leaf)
    return tree


def map_only(kinds: Any) -> Callable[[Callable[[Any], Any]], Callable[[Any], Any]]:
    """A function made to leave everything alone that is not of these types (or that a predicate does not take)."""
    predicate = (lambda x: isinstance(x, kinds)) if isinstance(kinds, type | tuple) else kinds
    return lambda func: lambda x: func(x) if predicate(x) else x


def tree_map_only(kinds: Any, func: Callable[[Any], Any], tree: PyTree, is_leaf: Callable[[Any], bool] | None = None) -> PyTree:
    """`tree_map` of the leaves of these types."""
    return tree_map(map_only(kinds)(func), tree, is_leaf=is_leaf)


def tree_map_only_(kinds: Any, func: Callable[[Any], Any], tree: PyTree, is_leaf: Callable[[Any], bool] | None = None) -> PyTree:
    """`tree_map_only` for what `func` does; gives the tree itself."""
    return tree_map_(map_only(kinds)(func), tree, is_leaf=is_leaf)


def tree_all(pred: Callable[[Any], bool], tree: PyTree, is_leaf: Callable[[Any], bool] | None = None) -> bool:
    """Whether a predicate holds for every leaf."""
    return all(map(pred, tree_leaves(tree, is_leaf)))


def tree_any(pred: Callable[[Any], bool], tree: PyTree, is_leaf: Callable[[Any], bool] | None = None) -> bool:
    """Whether a predicate holds for some leaf."""
    return any(map(pred, tree_leaves(tree, is_leaf)))


def tree_all_only(kinds: Any, pred: Callable[[Any], bool], tree: PyTree, is_leaf: Callable[[Any], bool] | None = None) -> bool:
    """Whether a predicate holds for every leaf of these types."""
    return all(pred(x) for x in tree_leaves(tree, is_leaf) if isinstance(x, kinds))


def tree_any_only(kinds: Any, pred: Callable[[Any], bool], tree: PyTree, is_leaf: Callable[[Any], bool] | None = None) -> bool:
    """Whether a predicate holds for some leaf of these types."""
    return any(pred(x) for x in tree_leaves(tree, is_leaf) if isinstance(x, kinds))


def _broadcast_to_and_flatten(tree: PyTree, treespec: TreeSpec, is_leaf: Callable[[Any], bool] | None = None) -> list[Any] | None:
    """The leaves of `tree`, each repeated for all leaves of `treespec` below it; None where it does not fit."""
    if tree_is_leaf(tree, is_leaf):
        return [tree] * treespec.num_leaves
    if treespec.is_leaf() or _get_node_type(tree) is not treespec.type:
        return None
    children, context = SUPPORTED_NODES[treespec.type].flatten_fn(tree)
    if len(children) != treespec.num_children or context != treespec.context:
        return None
    result: list[Any] = []
    for child, spec in zip(children, treespec.children_specs, strict=True):
        found = _broadcast_to_and_flatten(child, spec, is_leaf)
        if found is None:
            return None
        result.extend(found)
    return result


__all__ = [
    "Context", "LeafSpec", "NodeDef", "PyTree", "SUPPORTED_NODES", "TreeSpec", "is_namedtuple", "is_namedtuple_instance",
    "map_only", "register_pytree_node", "tree_all", "tree_all_only", "tree_any", "tree_any_only", "tree_flatten", "tree_is_leaf",
    "tree_iter", "tree_leaves", "tree_map", "tree_map_", "tree_map_only", "tree_map_only_", "tree_structure", "tree_unflatten",
]  # fmt: skip
