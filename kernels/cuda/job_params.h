// What the kernels of a job are told.
#pragma once

#include "job.h"
#include "tables_space.h"

namespace minifloat::cuda {

LinearParams linear_params(const Plan& plan, const Layout& l, const Job& job, const uint8_t* weight, int64_t m);
BitsParams bits_params(const Layout& l, const Job& job, const LinearParams& linear);
TablesParams tables_params(const Plan& plan, const LinearParams& linear);

QuantizeParams quantize_params(const Plan& plan, const Layout& l, const Job& job, const void* x, ElementType x_type, int64_t m,
                               char* workspace);
SpreadParams spread_params(const Plan& plan, const Layout& l, const Job& job, const void* x, ElementType x_type, int64_t m, void* out);

// The type of x that the kernels of the float contract read.
ElementType operand_type(const Job& job, ElementType x_type);

}  // namespace minifloat::cuda
