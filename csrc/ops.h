// Checks and helpers shared by the ops: what arrives from Python as byte tensors, seen as the kernels' structs.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include "cpu/kernels.h"
#include "cpu/layout.h"
#include "cpu/residues.h"

namespace minifloat {

// The Plan or Operand in a CPU byte tensor. Throws if it is not one.
const Plan& plan_of(const at::Tensor& record);
const Operand& operand_of(const at::Tensor& record);

// x, of any shape whose last dimension is k, as contiguous float32: itself where it is that. `op` goes into the error. And its rows.
at::Tensor as_floats(const at::Tensor& x, int64_t k, const char* op);
int64_t row_count(const at::Tensor& x);
at::Tensor as_rows(const at::Tensor& x, int64_t k, const char* op);  // as a matrix

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& plan,
                  const std::optional<at::Tensor>& bias, int64_t out_features);
at::Tensor linear_backward(const at::Tensor& grad, const at::Tensor& weight, const at::Tensor& plan, int64_t in_features);

// The op minifloat::linear, by way of the dispatcher.
using LinearSignature = at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&,
                                   c10::SymInt);
const c10::TypedOperatorHandle<LinearSignature>& linear_op();

}  // namespace minifloat
