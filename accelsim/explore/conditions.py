"""Conditions on points, as text: ``precision != 'int4' or computes(hardware, precision)``.

A small part of Python's expressions: names of axes, numbers, texts, lists, comparisons, ``in``, arithmetic,
``and or not`` and the functions given. Nothing else is evaluated.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from accelsim.core.errors import RequestError, did_you_mean

_BINARY: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_COMPARED: dict[type, Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}


@dataclass(frozen=True)
class Condition:
    """An expression over the names of a point.

    Attributes
    ----------
    text : str
    names : tuple of str
        The axes that it reads, sorted.
    """

    text: str
    names: tuple[str, ...]
    tree: ast.expr
    functions: Mapping[str, Callable[..., Any]]

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether a point meets it.

        Raises
        ------
        RequestError
            Values of these types cannot be compared.
        """
        try:
            return bool(self._value(self.tree, values))
        except (TypeError, ZeroDivisionError) as error:
            shown = ", ".join(f"{name}={values[name]!r}" for name in self.names)
            raise RequestError(f"the condition '{self.text}' fails for {shown}: {error}") from None

    def _value(self, node: ast.expr, values: Mapping[str, Any]) -> Any:
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name | ast.Attribute):
            return values[_dotted(node)]
        if isinstance(node, ast.BoolOp):
            found = (self._value(v, values) for v in node.values)
            return all(found) if isinstance(node.op, ast.And) else any(found)
        if isinstance(node, ast.UnaryOp):
            inner = self._value(node.operand, values)
            return not inner if isinstance(node.op, ast.Not) else -inner
        if isinstance(node, ast.BinOp):
            return _BINARY[type(node.op)](self._value(node.left, values), self._value(node.right, values))
        if isinstance(node, ast.Compare):
            left = self._value(node.left, values)
            for sign, right_node in zip(node.ops, node.comparators):
                right = self._value(right_node, values)
                if not _COMPARED[type(sign)](left, right):
                    return False
                left = right
            return True
        if isinstance(node, ast.List | ast.Tuple | ast.Set):
            return [self._value(e, values) for e in node.elts]
        call: Any = node
        return self.functions[call.func.id](*(self._value(a, values) for a in call.args))


def condition(text: str, known: Iterable[str], functions: Mapping[str, Callable[..., Any]]) -> Condition:
    """Read a condition.

    Parameters
    ----------
    text : str
    known : iterable of str
        Names that it may read.
    functions : mapping
        Functions that it may call, by name.

    Raises
    ------
    RequestError
        It is not an expression of the kind allowed, or reads an unknown name (with the nearest).
    """
    try:
        tree = ast.parse(text, mode="eval").body
    except SyntaxError as error:
        raise RequestError(f"the condition '{text}' is not an expression ({error.msg})") from None
    names: set[str] = set()
    _check(tree, text, set(known), functions, names)
    return Condition(text, tuple(sorted(names)), tree, functions)


def _check(node: ast.expr, text: str, known: set[str], functions: Mapping[str, Any], names: set[str]) -> None:
    children: list[ast.expr] = []
    if isinstance(node, ast.Name | ast.Attribute):
        name = _dotted(node)
        if name not in known:
            raise RequestError(f"the condition '{text}' reads '{name}'", hint=did_you_mean(name, known))
        names.add(name)
    elif isinstance(node, ast.BoolOp):
        children = node.values
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        children = [node.operand]
    elif isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        children = [node.left, node.right]
    elif isinstance(node, ast.Compare) and all(type(o) in _COMPARED for o in node.ops):
        children = [node.left, *node.comparators]
    elif isinstance(node, ast.List | ast.Tuple | ast.Set):
        children = node.elts
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        if node.func.id not in functions:
            raise RequestError(
                f"the condition '{text}' calls '{node.func.id}'", hint=did_you_mean(node.func.id, functions)
            )
        children = node.args
    elif not isinstance(node, ast.Constant):
        raise RequestError(
            f"the condition '{text}' has a part that is not allowed",
            hint="use names, numbers, texts, lists, comparisons, 'in', arithmetic, and, or, not",
        )
    for child in children:
        _check(child, text, known, functions, names)


def _dotted(node: ast.expr) -> str:
    """``memory.bandwidth`` reads as one name."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return "?"
    return ".".join([node.id, *reversed(parts)])
