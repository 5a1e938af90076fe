"""`make gpu`: build, test and measure the CUDA and Triton kernels on the GPU of this machine."""
