// minifloat::linear on the CPU: checks, quantizes the activations, then hands panels of outputs to the kernels.
#include <ATen/EmptyTensor.h>
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/mm.h>
#include <c10/core/CPUAllocator.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "ops.h"

namespace minifloat {
namespace {

constexpr int64_t kMultipliesPerTask = 1 << 17;  // below that a second thread costs more than it saves
constexpr int64_t kScratchFloats = 1 << 21;      // 8 MiB of decoded weights at a time
constexpr int64_t kPassBytes = 1 << 21;          // activations that stay in a core's caches while all panels pass by
constexpr int64_t kPassRows = 192;               // and what some kernels make of them: of 2000 rows int8 took 1.3 times as long

int64_t digit_bytes(const Plan& p) {
  switch (p.carrier) {
    case kInt8: return 1;
    case kInt16:
    case kInt16Windows: return 2;
    case kFloat: return 4;
    default: return 8;
  }
}

// Rows [first, first + count) of the call.
LinearArgs rows_of(const LinearArgs& a, int64_t first, int64_t count) {
  const Plan& p = *a.plan;
  LinearArgs part = a;
  part.m = count;
  part.x.digits = static_cast<uint8_t*>(a.x.digits) + first * p.k_padded * digit_bytes(p);
  if (a.x.sums) part.x.sums = a.x.sums + first * p.folds;
  if (a.x.scales) part.x.scales = a.x.scales + first * activation_groups(p);
  part.y = a.y + first * p.n;
  return part;
}

// A multiple of every tile's height, and enough for a panel to be worth decoding.
int64_t rows_per_pass(const Plan& p) {
  const int64_t fit = kPassBytes / std::max<int64_t>(1, p.k_padded * digit_bytes(p));
  return std::clamp<int64_t>(fit / 24 * 24, 96, kPassRows);
}

template <class T>
int64_t grain(T per_item) {
  return std::max<int64_t>(1, kMultipliesPerTask / std::max<int64_t>(1, per_item));
}

void check_weight(const Plan& p, const at::Tensor& weight, int64_t n, int64_t k) {
  TORCH_CHECK_VALUE(weight.is_cpu() && weight.scalar_type() == at::kByte && weight.is_contiguous() &&
                        are_layout(p, weight.const_data_ptr<uint8_t>(), weight.numel()),
                    "linear: the packed weight must be ", layout_of(p).bytes, " contiguous bytes on the CPU, got ",
                    weight.numel(), " of ", weight.scalar_type(), " on ", weight.device());
  TORCH_CHECK_VALUE(n < 0 || n == p.n, "linear: out_features=", n, " but the weight has N=", p.n);
  TORCH_CHECK_VALUE(k < 0 || k == p.k, "linear: in_features=", k, " but the weight has K=", p.k);
}

// Every scale of a row that holds NaN or infinity is NaN; a format without NaN cannot go on from there.
void check_finite(const Plan& p, const float* x, const float* scales, int64_t count) {
  if (p.activation.nan_code >= 0) return;
  for (int64_t i = 0; i < count; ++i) {
    if (scales[i] == scales[i]) continue;
    int64_t at = 0;
    while (std::isfinite(x[at])) ++at;
    TORCH_CHECK_VALUE(false, "linear: x holds ", x[at], " at row ", at / p.k, ", column ", at % p.k,
                      ", and the activation format has no NaN");
  }
}

// The digits, sums and scales of m rows, in one piece of memory.
struct Quantized {
  c10::DataPtr memory;
  Activations at{nullptr, nullptr, nullptr, 1.0f};

  Quantized(const Plan& p, int64_t m) {
    const bool has_sums = p.carrier == kInt8 || p.carrier == kInt16 || p.carrier == kInt16Windows;
    const int64_t digits = ceil_div(m * p.k_padded * digit_bytes(p), kRowBytes) * kRowBytes;
    const int64_t sums = has_sums ? m * p.folds * sizeof(int32_t) : 0;
    const int64_t scales = p.carrier != kFloat ? m * activation_groups(p) * sizeof(float) : 0;
    memory = c10::GetCPUAllocator()->allocate(digits + sums + scales);
    uint8_t* data = static_cast<uint8_t*>(memory.get());
    at.digits = data;
    if (sums) at.sums = reinterpret_cast<int32_t*>(data + digits);
    if (scales) at.scales = reinterpret_cast<float*>(data + digits + sums);
  }
};

// out (m, n) = x (m, k) @ w.T by decoding columns of w.T into scratch, for the float contract at large m.
void linear_by_gemm(const Plan& p, const uint8_t* weight, const at::Tensor& x, at::Tensor& y) {
  const int64_t panels = ceil_div(p.n, kPanel);
  const int64_t step = std::max<int64_t>(1, kScratchFloats / std::max<int64_t>(1, p.k * kPanel));
  for (int64_t first = 0; first < panels; first += step) {
    const int64_t last = std::min(panels, first + step), begin = first * kPanel, end = std::min(p.n, last * kPanel);
    at::Tensor columns = at::empty({p.k, end - begin}, x.options());
    float* out = columns.data_ptr<float>();
    at::parallel_for(first, last, grain(p.k * kPanel), [&](int64_t b, int64_t e) {
      active_kernels().weights_as_float(p, weight, out + (b - first) * kPanel, end - begin, b, e);
    });
    at::Tensor part = y.narrow(1, begin, end - begin);
    part.copy_(at::mm(x, columns));
  }
}

}  // namespace

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& record,
                  const std::optional<at::Tensor>& bias, int64_t out_features) {
  const Plan& p = plan_of(record);
  check_weight(p, weight, out_features, -1);
  const at::Tensor rows = as_floats(x, p.k, "linear");
  const int64_t m = row_count(rows);
  at::Tensor bias_floats;
  if (bias.has_value()) {
    TORCH_CHECK_VALUE(bias->dim() == 1 && bias->size(0) == p.n, "linear: bias has shape ", bias->sizes(), ", expected [",
                      p.n, "]");
    bias_floats = bias->to(at::kFloat).contiguous();
  }
  c10::SmallVector<int64_t, 4> shape(x.sizes().begin(), x.sizes().end());
  shape.back() = p.n;
  at::Tensor y = at::detail::empty_cpu(shape, at::kFloat);  // at::empty asks the dispatcher
  const auto result = [&] { return y.scalar_type() == x.scalar_type() ? y : y.to(x.scalar_type()); };
  if (y.numel() == 0) return result();
  const float* bias_data = bias.has_value() ? bias_floats.const_data_ptr<float>() : nullptr;
  const Kernels& kernels = active_kernels();
  const uint8_t* layout = weight.const_data_ptr<uint8_t>();
  Rare rare{marked_share(p, layout), 0.0, residue_share(p, layout, weight.numel())};
  Choice choice = choose(p, m, kernels.traits, rare);
  if (choice.decode == Decode::kGemm) {
    at::Tensor matrix = y.view({m, p.n});
    linear_by_gemm(p, weight.const_data_ptr<uint8_t>(), rows.view({m, p.k}), matrix);
    if (bias_data) matrix.add_(bias_floats);
    return result();
  }

  const float* x_data = rows.const_data_ptr<float>();
  std::optional<Quantized> quantized;
  Activations activations{const_cast<float*>(x_data), nullptr, nullptr, 1.0f};
  if (p.carrier != kFloat || p.k != p.k_padded) {
    activations = quantized.emplace(p, m).at;
    const Shared shared = p.carrier != kFloat ? kernels.shared_scale(p.activation, x_data, rows.numel()) : Shared{};
    activations.tensor_scale = shared.tensor_scale;
    at::parallel_for(0, m, grain(16 * p.k), [&](int64_t begin, int64_t end) {
      kernels.quantize_digits(p, x_data, shared, activations, begin, end);
    });
    if (p.carrier != kFloat) check_finite(p, x_data, activations.scales, m * activation_groups(p));
  }
  if (choice.clamps) {
    rare.beyond = share_beyond_clamp(p, activations.digits, m);
    choice = choose(p, m, kernels.traits, rare);
  }
  const LinearArgs args{&p, choice, weight.const_data_ptr<uint8_t>(), activations, m, bias_data, y.data_ptr<float>()};
  const int64_t pass = rows_per_pass(p);
  at::parallel_for(0, ceil_div(p.n, kPanel), grain(m * p.k * kPanel), [&](int64_t begin, int64_t end) {
    for (int64_t first = 0; first < m; first += pass)
      kernels.linear(rows_of(args, first, std::min(pass, m - first)), begin, end);
  });
  return result();
}

// grad_x = grad @ w, with w decoded: the activations' rounding is passed straight through.
at::Tensor linear_backward(const at::Tensor& grad, const at::Tensor& weight, const at::Tensor& record,
                           int64_t in_features) {
  const Plan& p = plan_of(record);
  check_weight(p, weight, -1, in_features);
  const at::Tensor rows = as_rows(grad, p.n, "linear_backward");
  at::Tensor columns = at::empty({p.k, p.n}, rows.options());
  float* out = columns.data_ptr<float>();
  at::parallel_for(0, ceil_div(p.n, kPanel), grain(p.k * kPanel), [&](int64_t begin, int64_t end) {
    active_kernels().weights_as_float(p, weight.const_data_ptr<uint8_t>(), out + begin * kPanel, p.n, begin, end);
  });
  auto shape = grad.sizes().vec();
  shape.back() = p.k;
  return at::mm(rows, columns.t()).to(grad.scalar_type()).reshape(shape);
}

TORCH_LIBRARY_IMPL(minifloat, CPU, m) {
  m.impl("linear", linear);
  m.impl("linear_backward", linear_backward);
}

}  // namespace minifloat
