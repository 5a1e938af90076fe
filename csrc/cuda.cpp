// The ops on a GPU: checks, current stream, workspace; then kernels/cuda. Built only where torch has CUDA (setup.py).
#include <ATen/Context.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/mm.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <c10/util/accumulate.h>
#include <torch/library.h>

#include <atomic>
#include <optional>
#include <string>
#include <tuple>

#include "cuda/job.h"
#include "ops.h"

namespace minifloat {
namespace {

constexpr int kOldest = 80;

std::atomic<cuda::Preference> preference = cuda::kPreferFastest;  // of all threads

void prefer(c10::string_view name) {
  cuda::Preference wanted;
  TORCH_CHECK_VALUE(cuda::parse_preference(std::string(name), wanted), "cuda_prefer: no kernels are called '", name,
                    "'; expected one of: ", cuda::kPreferenceNames);
  preference = wanted;
}

void check_cuda(cudaError_t error, const char* op) {
  if (error != cudaSuccess) cudaGetLastError();  // it stays the last one otherwise, and the next launch would report it
  TORCH_CHECK(error == cudaSuccess, op, ": CUDA reports '", cudaGetErrorString(error), "'");
}

cuda::Gpu gpu_of(int device, const char* op) {
  const auto attribute = [&](cudaDeviceAttr which) {
    int value = 0;
    check_cuda(cudaDeviceGetAttribute(&value, which, device), op);
    return value;
  };
  return {10 * attribute(cudaDevAttrComputeCapabilityMajor) + attribute(cudaDevAttrComputeCapabilityMinor),
          attribute(cudaDevAttrMultiProcessorCount), attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin), preference};
}

void check_device(const at::Tensor& t, const char* op) {
  const int capability = gpu_of(t.get_device(), op).capability;
  TORCH_CHECK_VALUE(capability >= kOldest, op, ": ", t.device(), " has compute capability ", capability / 10, ".",
                    capability % 10, "; the CUDA kernels need 8.0 or newer");
}

uint8_t* bytes_of(const at::Tensor& t) { return static_cast<uint8_t*>(t.data_ptr()); }

cudaStream_t stream_of(const at::Tensor& t) { return c10::cuda::getCurrentCUDAStream(t.get_device()).stream(); }

void check_weight(const Plan& p, const at::Tensor& weight, int64_t n, int64_t k, const char* op) {
  const int64_t bytes = cuda::layout_of(p).bytes;
  TORCH_CHECK_VALUE(weight.is_cuda() && weight.scalar_type() == at::kByte && weight.is_contiguous() && weight.numel() == bytes &&
                        reinterpret_cast<uintptr_t>(weight.const_data_ptr()) % 16 == 0,
                    op, ": the packed weight must be ", bytes, " contiguous bytes on a GPU, aligned to 16, got ",
                    weight.numel(), " of ", weight.scalar_type(), " on ", weight.device());
  TORCH_CHECK_VALUE(n < 0 || n == p.n, op, ": out_features=", n, " but the weight has N=", p.n);
  TORCH_CHECK_VALUE(k < 0 || k == p.k, op, ": in_features=", k, " but the weight has K=", p.k);
}

bool is_float8(at::ScalarType type) { return type == at::kFloat8_e4m3fn || type == at::kFloat8_e5m2; }

// The type in which x is multiplied: 8-bit floats as they are where that can be, else as bfloat16, which is exact.
at::ScalarType multiplied_type(const Plan& p, int64_t m, at::ScalarType x, const cuda::Gpu& gpu) {
  return is_float8(x) && !(x == at::kFloat8_e4m3fn && cuda::multiplies_float8(p, m, gpu)) ? at::kBFloat16 : x;
}

cuda::ElementType element_type(at::ScalarType type) {
  return is_float8(type)     ? cuda::kElementFloat8
         : type == at::kFloat ? cuda::kElementFloat32
         : type == at::kHalf  ? cuda::kElementFloat16
                              : cuda::kElementBFloat16;
}

// The kernels that linear would run on the current GPU, and how they multiply: "narrow int8".
std::string route(const at::Tensor& record, int64_t rows, at::ScalarType x_type) {
  const Plan& p = plan_of(record);
  const cuda::Gpu gpu = gpu_of(c10::cuda::current_device(), "cuda_route");
  return cuda::name_of(cuda::make_job(p, rows, element_type(multiplied_type(p, rows, x_type, gpu)), gpu));
}

// x as a contiguous matrix with k columns, of its own type.
at::Tensor as_matrix(const at::Tensor& x, const at::Tensor& weight, int64_t k, const char* op) {
  const auto type = x.scalar_type();
  TORCH_CHECK_VALUE(x.device() == weight.device(), op, ": x is on ", x.device(), " but the weight is on ", weight.device());
  TORCH_CHECK_VALUE(type == at::kFloat || type == at::kBFloat16 || type == at::kHalf || is_float8(type), op, ": x is ", type,
                    "; expected float32, bfloat16, float16, float8_e4m3fn or float8_e5m2");
  TORCH_CHECK_VALUE(x.dim() >= 1 && x.size(-1) == k, op, ": x has shape ", x.sizes(), " but the weight has K=", k);
  const int64_t rows = c10::multiply_integers(x.sizes().slice(0, x.dim() - 1));
  at::Tensor matrix = x.contiguous().reshape({rows, k});
  // Kernels load 16 bytes at a time; a slice may start in between.
  return reinterpret_cast<uintptr_t>(matrix.const_data_ptr()) % 16 ? matrix.clone() : matrix;
}

at::Tensor dequantized(const Plan& p, const at::Tensor& weight, const char* op) {
  at::Tensor out = at::empty({p.n, p.k}, weight.options().dtype(at::kFloat));
  if (out.numel() == 0) return out;
  check_cuda(cuda::dequantize_weight(cuda::dequantize_params(p, bytes_of(weight), out.data_ptr<float>()), stream_of(weight)), op);
  return out;
}

at::Tensor pack_weight(const at::Tensor& packed, const at::Tensor& scales, const std::optional<at::Tensor>& zero_points,
                       const at::Tensor& record) {
  const Plan& p = plan_of(record);
  const cuda::Layout l = cuda::layout_of(p);
  const c10::cuda::CUDAGuard guard(packed.device());
  check_device(packed, "pack_weight");
  const std::string problem = cuda::unsupported(p);
  TORCH_CHECK_VALUE(problem.empty(), "pack_weight: ", problem);
  const int64_t row_bytes = ceil_div(p.k * p.weight.bits, 8), count = p.weight.granularity == kTensor ? 1 : p.n * l.groups;
  TORCH_CHECK_VALUE(packed.scalar_type() == at::kByte && packed.sizes() == at::IntArrayRef({p.n, row_bytes}),
                    "pack_weight: codes must be uint8 of shape [", p.n, ", ", row_bytes, "], got ", packed.scalar_type(),
                    " of shape ", packed.sizes());
  TORCH_CHECK_VALUE(scales.device() == packed.device() && scales.numel() == count && scales.element_size() == l.scale_bytes,
                    "pack_weight: expected ", count, " scales of ", l.scale_bytes, " bytes on ", packed.device(), ", got ",
                    scales.numel(), " of ", scales.element_size(), " on ", scales.device());
  TORCH_CHECK_VALUE(zero_points.has_value() == bool(p.weight.has_zero_point) &&
                        (!zero_points.has_value() || (zero_points->device() == packed.device() &&
                                                      zero_points->numel() == count && zero_points->element_size() == 1)),
                    "pack_weight: zero points must be given exactly when the spec has them, one byte per scale, on ",
                    packed.device());
  const at::Tensor codes = packed.contiguous(), all_scales = scales.contiguous();
  const at::Tensor points = zero_points.has_value() ? zero_points->contiguous() : at::Tensor();
  at::Tensor out = at::empty({l.bytes}, codes.options());
  check_cuda(cuda::pack_weight(cuda::storage_params(p, bytes_of(codes), bytes_of(all_scales),
                                                    points.defined() ? bytes_of(points) : nullptr, bytes_of(out)),
                               stream_of(out)),
             "pack_weight");
  return out;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> restore_weight(const at::Tensor& weight, const at::Tensor& record) {
  const Plan& p = plan_of(record);
  const cuda::Layout l = cuda::layout_of(p);
  check_weight(p, weight, -1, -1, "restore_weight");
  const c10::cuda::CUDAGuard guard(weight.device());
  const bool one = p.weight.granularity == kTensor;
  const int64_t rows = one ? 1 : p.n, groups = one ? 1 : l.groups;
  at::Tensor codes = at::empty({p.n, ceil_div(p.k * p.weight.bits, 8)}, weight.options());
  at::Tensor scales = at::empty({rows, groups * l.scale_bytes}, weight.options());
  at::Tensor points = at::empty({p.weight.has_zero_point ? rows : 0, groups}, weight.options());
  check_cuda(cuda::restore_weight(
                 cuda::storage_params(p, bytes_of(codes), bytes_of(scales), bytes_of(points), bytes_of(weight)), stream_of(weight)),
             "restore_weight");
  return {codes, scales, points};
}

// x times the weights decoded to scratch memory, by cuBLAS with sums and product in float32, then scales and bias.
void linear_by_product(const Plan& p, const cuda::Job& job, const at::Tensor& rows, cuda::ElementType type, const at::Tensor& weight,
                       const float* bias, const at::Tensor& y) {
  const int64_t m = rows.size(0), k_padded = cuda::layout_of(p).k_padded;
  const at::Tensor decoded = at::empty({p.n, k_padded}, rows.options());
  const at::Tensor x = job.spread ? at::empty({m, k_padded}, rows.options()) : rows;
  check_cuda(cuda::prepare_product(p, job, bytes_of(weight), rows.const_data_ptr(), type, m, decoded.data_ptr(), x.data_ptr(),
                                   stream_of(weight)),
             "linear");
  const at::Tensor product = at::mm(x, decoded.t(), at::kFloat);
  check_cuda(cuda::finish_product(p, job, bytes_of(weight), type, m, product.data_ptr<float>(), bias, y.data_ptr(), stream_of(weight)),
             "linear");
}

// y has x's type; bfloat16 for 8-bit floats, which are multiplied as they are where that can be, else widened.
at::Tensor linear_cuda(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& record,
                       const std::optional<at::Tensor>& bias, int64_t out_features) {
  const Plan& p = plan_of(record);
  check_weight(p, weight, out_features, -1, "linear");
  const c10::cuda::CUDAGuard guard(weight.device());
  at::Tensor rows = as_matrix(x, weight, p.k, "linear");
  const int64_t m = rows.size(0);
  const cuda::Gpu gpu = gpu_of(weight.get_device(), "linear");
  rows = rows.to(multiplied_type(p, m, rows.scalar_type(), gpu));
  const auto y_type = is_float8(rows.scalar_type()) ? at::kBFloat16 : rows.scalar_type();
  at::Tensor bias_floats;
  if (bias.has_value()) {
    TORCH_CHECK_VALUE(bias->dim() == 1 && bias->size(0) == p.n, "linear: bias has shape ", bias->sizes(), ", expected [", p.n,
                      "]");
    TORCH_CHECK_VALUE(bias->device() == x.device(), "linear: bias is on ", bias->device(), " but x is on ", x.device());
    bias_floats = bias->to(at::kFloat).contiguous();
  }
  auto shape = x.sizes().vec();
  shape.back() = p.n;
  at::Tensor y = at::empty({m, p.n}, rows.options().dtype(y_type));
  if (y.numel() == 0) return y.reshape(shape);

  const cuda::ElementType type = element_type(rows.scalar_type());
  const cuda::Job job = cuda::make_job(p, m, type, gpu);
  if (job.route == cuda::kRouteMultiply) {
    const at::NoTF32Guard full_precision;
    at::Tensor product = at::matmul(rows.to(at::kFloat), dequantized(p, weight, "linear").t());
    if (bias.has_value()) product.add_(bias_floats);
    return product.to(y_type).reshape(shape);
  }
  if (job.route == cuda::kRouteProduct) {
    linear_by_product(p, job, rows, type, weight, bias.has_value() ? bias_floats.const_data_ptr<float>() : nullptr, y);
    return y.reshape(shape);
  }
  const at::Tensor workspace = at::empty({job.workspace_bytes}, weight.options());
  check_cuda(cuda::linear(p, job, bytes_of(weight), rows.const_data_ptr(), type, m,
                          bias.has_value() ? bias_floats.const_data_ptr<float>() : nullptr, y.data_ptr(), workspace.data_ptr(),
                          stream_of(weight)),
             "linear");
  return y.reshape(shape);
}

// grad_x = grad @ w, with w decoded: the activations' rounding is passed straight through.
at::Tensor linear_backward_cuda(const at::Tensor& grad, const at::Tensor& weight, const at::Tensor& record,
                                int64_t in_features) {
  const Plan& p = plan_of(record);
  check_weight(p, weight, -1, in_features, "linear_backward");
  const c10::cuda::CUDAGuard guard(weight.device());
  const at::Tensor rows = as_matrix(grad, weight, p.n, "linear_backward");
  auto shape = grad.sizes().vec();
  shape.back() = p.k;
  const at::NoTF32Guard full_precision;
  return at::matmul(rows.to(at::kFloat), dequantized(p, weight, "linear_backward")).to(grad.scalar_type()).reshape(shape);
}

// The rest is done once per weight, by the CPU's op on a copy.
at::Tensor pack_cuda(const at::Tensor& codes, int64_t bits) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("minifloat::pack", "")
                             .typed<at::Tensor(const at::Tensor&, int64_t)>();
  return op.call(codes.cpu(), bits).to(codes.device());
}

at::Tensor unpack_cuda(const at::Tensor& packed, int64_t bits, int64_t k) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("minifloat::unpack", "")
                             .typed<at::Tensor(const at::Tensor&, int64_t, int64_t)>();
  return op.call(packed.cpu(), bits, k).to(packed.device());
}

std::optional<at::Tensor> cpu_of(const std::optional<at::Tensor>& t) {
  return t.has_value() ? std::optional<at::Tensor>(t->cpu()) : std::nullopt;
}

using Quantized = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

Quantized quantize_cuda(const at::Tensor& x, const at::Tensor& operand, const std::optional<at::Tensor>& scales,
                        const std::optional<at::Tensor>& zero_points, double tensor_scale) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("minifloat::quantize", "")
          .typed<Quantized(const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&,
                           const std::optional<at::Tensor>&, double)>();
  const auto [codes, found_scales, points, second] =
      op.call(x.cpu(), operand, cpu_of(scales), cpu_of(zero_points), tensor_scale);
  return {codes.to(x.device()), found_scales.to(x.device()), points.to(x.device()), second.to(x.device())};
}

at::Tensor dequantize_cuda(const at::Tensor& codes, const at::Tensor& scales, const std::optional<at::Tensor>& zero_points,
                           double tensor_scale, const at::Tensor& operand) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("minifloat::dequantize", "")
                             .typed<at::Tensor(const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&, double,
                                               const at::Tensor&)>();
  return op.call(codes.cpu(), scales.cpu(), cpu_of(zero_points), tensor_scale, operand).to(codes.device());
}

}  // namespace

// Its presence tells Python that the extension was built with CUDA.
TORCH_LIBRARY_FRAGMENT(minifloat, m) {
  m.def("cuda_version() -> int", [] { return int64_t(CUDART_VERSION); });
  m.def("cuda_prefer(str name) -> ()", prefer);
  m.def("cuda_route(Tensor plan, int rows, ScalarType x_type) -> str", route);
}

TORCH_LIBRARY_IMPL(minifloat, CUDA, m) {
  m.impl("pack", pack_cuda);
  m.impl("unpack", unpack_cuda);
  m.impl("quantize", quantize_cuda);
  m.impl("dequantize", dequantize_cuda);
  m.impl("pack_weight", pack_weight);
  m.impl("restore_weight", restore_weight);
  m.impl("linear", linear_cuda);
  m.impl("linear_backward", linear_backward_cuda);
}

}  // namespace minifloat
