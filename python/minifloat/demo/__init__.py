"""`minifloat demo`: a real sentence encoder at 3 to 8 bits: fidelity, size, speed, and the kernels checked."""
