"""Which weight and activation formats the demo runs, and why these."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Setting:
    """One row of the table."""

    weight: str
    activation: str | None = None

    @property
    def name(self) -> str:
        return f"{self.weight} x {self.activation}" if self.activation else self.weight


# Weight-only shows what the weight format itself costs. Beside it stands what a user would run for speed: int8
# activations with one scale a token, the cheapest exact partner of any grid. The MX formats also meet themselves, as
# OCP's hardware multiplies them.
SETTINGS = [
    Setting("int8-row"),
    Setting("int8-row", "int8-row"),
    Setting("e2m3-row"),
    Setting("e2m3-row", "int8-row"),
    Setting("mxfp6-e3m2"),
    Setting("mxfp6-e3m2", "int8-row"),
    Setting("mxfp6-e3m2", "mxfp6-e3m2"),
    Setting("int4-g32"),
    Setting("int4-g32", "int8-row"),
    Setting("nf4-g64"),
    Setting("nf4-g64", "int8-row"),
    Setting("mxfp4"),
    Setting("mxfp4", "int8-row"),
    Setting("mxfp4", "mxfp4"),
    Setting("e1m1-g32"),
    Setting("e1m1-g32", "int8-row"),
]


def choose(pattern: str | None) -> list[Setting]:
    """Return the settings whose name contains one of the comma-separated parts of pattern, or all of them for None."""
    if not pattern:
        return SETTINGS
    parts = [part.strip() for part in pattern.split(",") if part.strip()]
    chosen = [setting for setting in SETTINGS if any(part in setting.name for part in parts)]
    if not chosen:
        names = ", ".join(setting.name for setting in SETTINGS)
        raise ValueError(f"no setting matches '{pattern}'; there are: {names}")
    return chosen
