"""`make gpu`: build, test and measure the CUDA kernels on the GPU of this machine."""
