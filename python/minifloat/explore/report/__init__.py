"""`minifloat report`: results of sweeps as one page."""
