"""The map of the design space: `minifloat explore` measures cells of it, `minifloat report` draws them."""
