// The op schemas, and the few plain functions that Python calls directly.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/library.h>

#include "cpu/kernels.h"

namespace minifloat {
void add_linear(PyObject* module);  // python_linear.cpp
}

TORCH_LIBRARY(minifloat, m) {
  m.def("pack(Tensor codes, int bits) -> Tensor");
  m.def("unpack(Tensor packed, int bits, int k) -> Tensor");
  m.def(
      "quantize(Tensor x, Tensor operand, Tensor? scales=None, Tensor? zero_points=None, float tensor_scale=1.0) -> "
      "(Tensor codes, Tensor scales, Tensor zero_points, Tensor tensor_scale)");
  m.def(
      "dequantize(Tensor codes, Tensor scales, Tensor? zero_points, float tensor_scale, Tensor operand) -> Tensor");
  m.def("pack_weight(Tensor packed, Tensor scales, Tensor? zero_points, Tensor plan) -> Tensor");
  m.def("restore_weight(Tensor weight, Tensor plan) -> (Tensor packed, Tensor scales, Tensor zero_points)");
  m.def("linear(Tensor x, Tensor weight, Tensor plan, Tensor? bias, SymInt out_features) -> Tensor");
  m.def("linear_backward(Tensor grad, Tensor weight, Tensor plan, SymInt in_features) -> Tensor");
}

PYBIND11_MODULE(_C, m) {
  m.doc() = "minifloat's compiled kernels; the ops are torch.ops.minifloat";
  m.attr("PLAN_BYTES") = sizeof(minifloat::Plan);
  m.attr("OPERAND_BYTES") = sizeof(minifloat::Operand);
  minifloat::add_linear(m.ptr());
  m.def("isa", [] { return std::string(minifloat::active_kernels().name); }, "the instruction set in use");
  m.def("supported_isas", &minifloat::supported_isas, "instruction sets this CPU supports, widest last");
  m.def(
      "choice",
      [](const std::string& plan, int64_t rows, double marked, double beyond, double residues) {
        if (plan.size() != sizeof(minifloat::Plan)) throw std::invalid_argument("choice: these bytes are not a plan");
        const auto& p = *reinterpret_cast<const minifloat::Plan*>(plan.data());
        const auto choice = minifloat::choose(p, rows, minifloat::active_kernels().traits, {marked, beyond, residues});
        return std::pair<std::string, int>(choice.method, int(choice.decode));
      },
      "method and way to decode (0 registers, 1 panel, 2 gemm) for a plan, so many rows and shares that are Rare");
  m.def("force_choice", &minifloat::force_choice, "see kernels/cpu/choice.h");
  m.def("select_isa", &minifloat::select_kernels, "use this instruction set from now on");
}
