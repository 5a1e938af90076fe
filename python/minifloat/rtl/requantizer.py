"""The circuit of Requantize: multiply, then normalise, round by guard and sticky bits, saturate. Latency 2."""

from __future__ import annotations

from .arithmetic import Integer, width
from .module import Module, bit, extend, literal, spread
from .requantize import Requantize

LATENCY = 2


def requantizer(m: Module, total: str, total_range: tuple[int, int], multiplier: str, r: Requantize) -> str:
    """Add the stages to m; returns the signal of the code. `multiplier` is in step with `total`."""
    low, high = total_range[0] * max(r.multipliers), total_range[1] * max(r.multipliers)
    bits = width(low, high)
    total_bits = width(*total_range)
    wide = Integer(total, total_bits, *total_range)
    m.note(f"Requantize to {r.format}: times the row's multiplier, over 2**{r.shift}, nearest even, saturated.")
    m.wire("scaled", bits)
    if low < 0:
        padded = f"$signed({{1'b0, {multiplier}}})"
        m.assign("scaled", f"$signed({wide.to(bits)}) * {padded}")
    else:
        m.assign(
            "scaled", f"{wide.to(bits)} * {extend(multiplier, r.multiplier_bits, max(bits, r.multiplier_bits), False)}"
        )
    scaled = Integer(m.register([("scaled", bits)])[0], bits, low, high)
    code = _integer(m, scaled, r) if r.format.kind == "int" else _float(m, scaled, r)
    return m.register([(code, r.format.bits)])[0]


def _integer(m: Module, x: Integer, r: Requantize) -> str:
    """Nearest even at the binary point, then the format's limits."""
    point = r.fraction_bits
    bits = max(x.bits, point + 1) + 1
    wide = m.wire("wide", bits, x.to(bits))
    half = (1 << (point - 1)) - 1  # below one half by one unit; the bit that becomes the last one makes ties even
    odd = extend(f"{wide}[{point}]", 1, bits, False)
    m.wire("rounded", bits, f"{wide} + {literal(half, bits)} + {odd}")
    whole = bits - point
    m.wire("whole", whole, f"rounded[{bits - 1}:{point}]")
    low, high = int(r.format.min), int(r.format.max)
    out = r.format.bits
    m.wire("code", out)
    negative = bit("whole", whole, whole - 1) if x.signed else "1'b0"
    wide_enough = max(whole, out + 1)
    value = m.wire("value", wide_enough, extend("whole", whole, wide_enough, x.signed))
    over = f"(~{negative} & ({value} > {literal(high, wide_enough)}))"
    # Compared without signs: among negative numbers the order of the patterns is that of the values.
    under = f"({negative} & ({value} < {literal(low, wide_enough)}))" if low < 0 else negative
    m.wire("over", 1, over)
    m.wire("under", 1, under)
    m.assign(
        "code", f"over ? {literal(high, out)} : under ? {literal(low, out)} : {extend(value, wide_enough, out, False)}"
    )
    return "code"


def _float(m: Module, x: Integer, r: Requantize) -> str:
    """Left-align so that the significand is at a fixed place; the exponent is how far the leading one is up."""
    f, point = r.format, r.fraction_bits
    mant = f.mantissa_bits
    codes = [c for c in range(1 << (f.exponent_bits + mant)) if f.is_number[c]]
    top_code = max(codes)  # the largest finite magnitude
    most = max(top_code >> mant, 1) - 1  # binades above the first
    bits = max(x.bits + 1, point + mant + 2)
    negative = m.wire("below_zero", 1, bit(x.name, x.bits, x.bits - 1) if x.signed else "1'b0")
    m.wire("wide", bits, x.to(bits))
    size = m.wire("size", bits, f"(wide ^ {spread(negative, bits)}) + {extend(negative, 1, bits, False)}")
    exponent_bits = width(0, most + 1)
    m.wire("binade", exponent_bits)
    choices = [e for e in range(most, 0, -1) if point + mant + e < bits]
    expression = literal(0, exponent_bits)
    for e in reversed(choices):
        expression = f"(|size[{bits - 1}:{point + mant + e}]) ? {literal(e, exponent_bits)} :\n    {expression}"
    m.assign("binade", expression)
    room = bits + most
    m.wire("left", exponent_bits, f"{literal(most, exponent_bits)} - binade")
    m.wire("aligned", room, f"{extend(size, bits, room, False)} << left")
    place = point + most  # of the significand's last bit
    kept = m.wire("kept", room - place, f"aligned[{room - 1}:{place}]")
    guard = m.wire("guard", 1, f"aligned[{place - 1}]")
    sticky = m.wire("sticky", 1, f"|aligned[{place - 2}:0]" if place > 1 else "1'b0")
    odd = bit(kept, room - place, 0)
    if mant == 0:  # the last bit of the code is then one of the exponent
        odd = f"({odd} ^ {bit('binade', exponent_bits, 0)})"
    m.wire("round_up", 1, f"{guard} & ({sticky} | {odd})")
    # Codes of one sign are ordered: a carry out of the significand moves on to the next binade by itself.
    total = max(room - place, exponent_bits + mant) + 1
    shifted = f"{{binade, {mant}'b0}}" if mant else "binade"
    m.wire(
        "ordered",
        total,
        f"{extend(shifted, exponent_bits + mant, total, False)} + {extend(kept, room - place, total, False)}"
        f" + {extend('round_up', 1, total, False)}",
    )
    magnitude_bits = f.exponent_bits + mant
    m.wire("magnitude", magnitude_bits)
    wide_enough = max(total, magnitude_bits + 1)
    m.wire("ordered_wide", wide_enough, extend("ordered", total, wide_enough, False))
    limit = literal(top_code, wide_enough)
    low = extend("ordered_wide", wide_enough, magnitude_bits, False)
    m.assign("magnitude", f"ordered_wide > {limit} ? {literal(top_code, magnitude_bits)} : {low}")
    if not f.signed:
        m.wire("code", f.bits, f"magnitude & {spread(f'(~{negative})', magnitude_bits)}")
    elif f.negative_zero_code is None:
        m.wire("code", f.bits, f"{{{negative} & (|magnitude), magnitude}}")
    else:
        m.wire("code", f.bits, f"{{{negative}, magnitude}}")
    return "code"
