// Checks and helpers shared by the ops: what arrives from Python as byte tensors, seen as the kernels' structs.
#pragma once

#include <ATen/core/Tensor.h>

#include "cpu/kernels.h"
#include "cpu/layout.h"

namespace minifloat {

// The Plan or Operand in a CPU byte tensor. Throws if it is not one.
const Plan& plan_of(const at::Tensor& record);
const Operand& operand_of(const at::Tensor& record);

// x as a contiguous float32 matrix with k columns; op and name go into the error.
at::Tensor as_rows(const at::Tensor& x, int64_t k, const char* op);

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& plan,
                  const std::optional<at::Tensor>& bias, int64_t out_features);
at::Tensor linear_backward(const at::Tensor& grad, const at::Tensor& weight, const at::Tensor& plan, int64_t in_features);

}  // namespace minifloat
