"""A constant matrix times a vector as additions of shifted signals, with common subexpressions shared."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import combinations

# A row is {(node, shift): sign}; nodes below K are inputs, the others are entries of Program.nodes.
Row = dict[tuple[int, int], int]


@dataclass(frozen=True)
class Node:
    """left << left_shift, plus or minus right << right_shift."""

    left: int
    left_shift: int
    right: int
    right_shift: int
    sign: int


@dataclass(frozen=True)
class Program:
    """inputs: K. nodes: shared subexpressions, node i is called inputs + i. rows: what each output still sums."""

    inputs: int
    nodes: list[Node]
    rows: list[Row]

    @property
    def adders(self) -> int:
        return len(self.nodes) + sum(max(len(row) - 1, 0) for row in self.rows)


def signed_digits(value: int) -> list[tuple[int, int]]:
    """Canonical signed digits of an integer: (shift, sign), no two adjacent, as few as possible.

    Source: Reitwiesner, "Binary Arithmetic", 1960.
    """
    out, shift = [], 0
    while value:
        if value & 1:
            digit = 2 - (value & 3)  # +1 if the low bits are 01, -1 if they are 11
            out.append((shift, digit))
            value -= digit
        value >>= 1
        shift += 1
    return out


def share(matrix: list[list[int]]) -> Program:
    """Greedy sharing: the most frequent pair of shifted terms becomes a node, until no pair occurs twice.

    Source: Hartley, "Subexpression Sharing in Filters Using Canonic Signed Digit Multipliers", 1996.
    """
    rows: list[Row] = [{(k, s): g for k, value in enumerate(row) for s, g in signed_digits(value)} for row in matrix]
    inputs, nodes = len(matrix[0]), []
    counts: Counter = Counter()
    for row in rows:
        counts.update(_pairs(row))
    while counts:
        pattern, count = max(counts.items(), key=lambda item: (item[1], item[0]))
        if count < 2:
            break
        node = inputs + len(nodes)
        nodes.append(Node(*pattern))
        for row in rows:
            before = _pairs(row)
            if before[pattern] and _replace(row, pattern, node):
                counts.subtract(before)
                counts.update(_pairs(row))
        counts = +counts
        counts.pop(pattern, None)  # what is left of it overlaps itself
    return Program(inputs, nodes, rows)


def _pairs(row: Row) -> Counter:
    """How often each pattern (left, left shift, right, right shift, relative sign) occurs in a row."""
    found: Counter = Counter()
    for ((n1, s1), g1), ((n2, s2), g2) in combinations(sorted(row.items()), 2):
        base = min(s1, s2)
        found[n1, s1 - base, n2, s2 - base, g1 * g2] += 1
    return found


def _replace(row: Row, pattern: tuple[int, int, int, int, int], node: int) -> int:
    """Replace occurrences of the pattern that do not overlap; returns how many."""
    n1, d1, n2, d2, relative = pattern
    done = 0
    for (n, s), sign in sorted(row.items()):
        base = s - d1
        other = (n2, base + d2)
        if n != n1 or base < 0 or (n, s) not in row or other == (n, s) or row.get(other) != sign * relative:
            continue
        if row[n, s] != sign:
            continue
        del row[n, s], row[other]
        row[node, base] = sign
        done += 1
    return done
