"""Format names: e{E}m{M}[b{bias}][suffix], u in front for unsigned; int{n}, uint{n}, binary, ternary, codebooks."""

from __future__ import annotations

import difflib
import math
import re

import numpy as np

from . import codebooks
from .format import Format

FLOAT_NAME = re.compile(r"(u?)e(\d+)m(\d+)(?:b(-?\d+))?(ieee|fnuz|fnu|fn|finite)?")
INT_NAME = re.compile(r"(u?)int(\d+)")
E8M0 = "'e8m0fnu' (OCP scale format, no zero, one NaN)"
# Splits that two published standards read differently: a bare name would be a guess.
AMBIGUOUS = {
    (True, 4, 3): "'e4m3fn' (OCP), 'e4m3fnuz', 'e4m3ieee' (with infinity) or 'e4m3finite' (every code a number)",
    (False, 8, 0): E8M0,
    (True, 8, 0): E8M0,
}
COMMON = ["e2m1", "e3m0", "e2m3", "e3m2", "e4m3fn", "e4m3fnuz", "e5m2", "e5m2fnuz", "e3m4", "e8m0fnu"]

_codebooks: dict[str, Format] = {}


def parse_format(name: str | Format) -> Format:
    if isinstance(name, Format):
        return name
    if not isinstance(name, str):
        raise ValueError(f"a format is named by a string such as 'e2m1', got {type(name).__name__}")
    if name in _codebooks:
        return _codebooks[name]
    if match := INT_NAME.fullmatch(name):
        return _int_format(name, match)
    if match := FLOAT_NAME.fullmatch(name):
        return _float_format(name, match)
    raise ValueError(f"unknown format {name!r}: {_suggestion(name)}")


def format_names() -> list[str]:
    """The formats that have a name of their own, for listings: integers, named floats, codebooks."""
    ints = [f"{sign}int{n}" for sign in ("", "u") for n in range(1, 9)]
    return ints + COMMON + list(_codebooks)


def register_codebook(name: str, values) -> Format:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or FLOAT_NAME.fullmatch(name) or INT_NAME.fullmatch(name):
        raise ValueError(
            f"codebook name {name!r} must be lower-case letters, digits and underscores, unlike e2m1 or int4"
        )
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 1 or not 2 <= len(table) <= 256:
        raise ValueError(f"codebook {name!r} needs a flat table of 2 to 256 values, got shape {table.shape}")
    if not np.isfinite(table).all():
        raise ValueError(f"codebook {name!r} holds {table[~np.isfinite(table)][0]}: every value must be finite")
    inexact = table != table.astype(np.float32)
    if inexact.any():
        raise ValueError(f"codebook {name!r}: {table[inexact][0]!r} is not a float32 value; round the table to float32")
    if not table.any():
        raise ValueError(f"codebook {name!r} holds only zeros")
    table = table + 0.0  # a table has one zero: -0.0 becomes 0.0
    bits = max(1, math.ceil(math.log2(len(table))))
    made = Format(name, "codebook", bits, bool((table < 0).any()), table=tuple(table.tolist()))
    if _codebooks.setdefault(name, made) != made:
        raise ValueError(f"codebook {name!r} already means other values: choose another name")
    return made


def _int_format(name: str, match: re.Match) -> Format:
    unsigned, bits = match[1], int(match[2])
    if not 1 <= bits <= 8 or match[2][0] == "0":
        raise ValueError(f"{name!r}: integers have 1 to 8 bits")
    return Format(name, "int", bits, not unsigned)


def _float_format(name: str, match: re.Match) -> Format:
    unsigned, exponent_bits, mantissa_bits = bool(match[1]), int(match[2]), int(match[3])
    suffix = match[5] or ""
    if suffix == "fnu":  # e8m0fnu: the u that others write in front stands behind
        if unsigned or mantissa_bits:
            raise ValueError(f"{name!r}: the suffix fnu means unsigned, no zero, m0, as in 'e8m0fnu'")
        unsigned = True
    bits = exponent_bits + mantissa_bits + (not unsigned)
    if not suffix and (not unsigned, exponent_bits, mantissa_bits) in AMBIGUOUS:
        choices = AMBIGUOUS[not unsigned, exponent_bits, mantissa_bits]
        raise ValueError(f"{name!r} is read differently by different standards: did you mean {choices}?")
    if exponent_bits < 1 or not 2 <= bits <= 8:
        raise ValueError(f"{name!r} has {bits} bits and {exponent_bits} exponent bits: need 2 to 8 bits and E >= 1")
    if bits < 8 and suffix:
        raise ValueError(f"{name!r}: below 8 bits every code is a number; write {name.removesuffix(suffix)!r}")
    unmarked = "ieee" if bits == 8 and (exponent_bits, mantissa_bits) == (5, 2) else "none"  # e5m2 is OCP's
    special = {"": unmarked, "finite": "none"}.get(suffix, suffix)
    if special == unmarked and (not unsigned, exponent_bits, mantissa_bits) not in AMBIGUOUS:
        suffix = ""  # one name for each format: e5m2ieee is e5m2, e3m4finite is e3m4
    if special == "ieee" and mantissa_bits == 0:
        raise ValueError(f"{name!r}: an IEEE-like format needs a mantissa bit to tell NaN from infinity")
    if special == "fnuz" and unsigned:
        raise ValueError(f"{name!r}: fnuz stores NaN in the code of minus zero, which an unsigned format lacks")
    default_bias = 2 ** (exponent_bits - 1) - (special != "fnuz")
    bias = default_bias if match[4] is None else int(match[4])
    canonical = f"{'u' if unsigned and special != 'fnu' else ''}e{exponent_bits}m{mantissa_bits}"
    canonical += (f"b{bias}" if bias != default_bias else "") + suffix
    made = Format(canonical, "float", bits, not unsigned, exponent_bits, mantissa_bits, bias, special)
    _check_float32_holds(name, made)
    return made


def _check_float32_holds(name: str, f: Format) -> None:
    # Checked on exponents, before float64 itself could overflow.
    top_is_special = f.special == "ieee" or (f.special in ("fn", "fnu") and f.mantissa_bits == 0)
    top_field = (1 << f.exponent_bits) - 1 - top_is_special
    top, lowest = top_field - f.bias, f.unit
    if top > 127 or lowest < -149:
        raise ValueError(
            f"{name!r} spans 2**{lowest} to 2**{top}, beyond float32 (2**-149 to 2**127): "
            f"its bias must be between {top_field - 127} and {f.bias + lowest + 149}"
        )


def _suggestion(name: str) -> str:
    base = re.match(r"u?e\d+m\d+", name)
    near = [c for c in format_names() if base and c.startswith(base[0])]
    near = near or difflib.get_close_matches(name, format_names(), n=3)
    if near:
        return f"did you mean {' or '.join(map(repr, near))}?"
    return f"use e{{E}}m{{M}}, int{{n}}, uint{{n}} or one of {', '.join(_codebooks)}"


for _name, _values in codebooks.TABLES.items():
    register_codebook(_name, _values)
