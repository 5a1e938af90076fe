"""The sum of many terms: a balanced tree of adders, each as wide as its range needs, each taking in one carry."""

from __future__ import annotations

from .arithmetic import Integer, Term, add, width
from .module import Module


def add_tree(m: Module, terms: list[Term]) -> Term:
    """The sum of all terms. n terms bring n carries; n - 1 adders take one each, and the last stays with the result.

    The range of each node counts the carries taken in below it, so that a term (complement) and its carry cancel out.
    """
    nodes = [term.x for term in terms]
    carries = [term.carry for term in terms if term.carry]
    level = 0
    while len(nodes) > 1:
        above = []
        for i in range(0, len(nodes) - 1, 2):
            x, y = nodes[i], nodes[i + 1]
            carry = carries.pop(0) if carries else None
            low, high = x.low + y.low, x.high + y.high + (carry is not None)
            bits = width(low, high)
            name = add(m, f"tree{level}_{i // 2}", x.to(bits), y.to(bits), carry, bits)
            above.append(Integer(name, bits, low, high))
        nodes = above + nodes[len(nodes) & ~1 :]
        level += 1
    return Term(nodes[0], carries[0] if carries else None)
