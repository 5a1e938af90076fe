// Test only: torch built without CUDA leaves this generated header out; its others are there.
#pragma once
#define C10_CUDA_BUILD_SHARED_LIBS
