"""A SystemVerilog module as text: ports, declarations and statements in the order they were added."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Port:
    """direction: "input" or "output". bits: width; 1 is a scalar."""

    direction: str
    name: str
    bits: int


@dataclass
class Module:
    """One flat module with literal widths, in the subset that Verilator, Icarus and yosys all read.

    comment: the header, one string a line, without the slashes.
    """

    name: str
    comment: list[str]
    ports: list[Port] = field(default_factory=list)
    body: list[str] = field(default_factory=list)

    def input(self, name: str, bits: int = 1) -> str:
        self.ports.append(Port("input", name, bits))
        return name

    def output(self, name: str, bits: int = 1) -> str:
        self.ports.append(Port("output", name, bits))
        return name

    def wire(self, name: str, bits: int, expression: str | None = None) -> str:
        """Declare `name`, assigned to `expression` if there is one."""
        self.body.append(f"logic {span(bits)}{name};")
        if expression is not None:
            self.body.append(f"assign {name} = {expression};")
        return name

    def assign(self, target: str, expression: str) -> None:
        self.body.append(f"assign {target} = {expression};")

    def note(self, text: str) -> None:
        self.body += ["", f"// {text}"]

    def register(self, signals: list[tuple[str, int]], suffix: str = "_q") -> list[str]:
        """Registers without enable or reset: name -> name + suffix, one clock later."""
        for name, bits in signals:
            self.wire(name + suffix, bits)
        self.clocked([f"{name}{suffix} <= {name};" for name, _ in signals])
        return [name + suffix for name, _ in signals]

    def clocked(self, statements: list[str]) -> None:
        """An always_ff block; nested lines carry their own indentation."""
        self.body += ["always_ff @(posedge clk_i) begin", *("  " + s for s in statements), "end"]

    def instance(self, module: str, name: str, connections: dict[str, str]) -> None:
        pins = [f"  .{port}({signal})" for port, signal in connections.items()]
        self.body += [f"{module} {name} (", *_comma(pins), ");"]

    def render(self) -> str:
        ports = [f"  {p.direction:<6} logic {span(p.bits)}{p.name}" for p in self.ports]
        lines = [*(f"// {line}".rstrip() for line in self.comment), f"module {self.name} (", *_comma(ports), ");"]
        lines += [f"  {line}".rstrip() for line in self.body]
        return "\n".join([*lines, "endmodule", ""])


def span(bits: int) -> str:
    """The packed range in front of a name: nothing for a scalar."""
    return f"[{bits - 1}:0] " if bits > 1 else ""


def literal(value: int, bits: int) -> str:
    """A sized constant; negative values as two's complement."""
    return f"{bits}'h{value & ((1 << bits) - 1):x}"


def spread(name: str, count: int) -> str:
    """`count` copies of a scalar."""
    return name if count == 1 else f"{{{count}{{{name}}}}}"


def bit(name: str, bits: int, index: int) -> str:
    """One bit of a signal `bits` wide; scalars are not indexed."""
    return name if bits == 1 else f"{name}[{index}]"


def extend(name: str, bits: int, to: int, signed: bool) -> str:
    """`name` widened to `to` bits by its sign or by zeros; or cut to the low `to` bits."""
    if to == bits:
        return name
    if to < bits:
        return f"{name}[{to - 1}:0]" if to > 1 else f"{name}[0]"
    if not signed:
        return f"{{{to - bits}'b0, {name}}}"
    return f"{{{spread(bit(name, bits, bits - 1), to - bits)}, {name}}}"


def _comma(items: list[str]) -> list[str]:
    return [item + "," for item in items[:-1]] + items[-1:]
