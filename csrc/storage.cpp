// Codes and storage on the CPU: quantize, dequantize, pack, unpack, and the kernels' weight layout.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/scalar_tensor.h>
#include <sys/mman.h>
#include <torch/library.h>

#include "ops.h"

namespace minifloat {

const Plan& plan_of(const at::Tensor& record) {
  const Plan* plan = static_cast<const Plan*>(record.const_data_ptr());
  TORCH_CHECK_VALUE(record.is_cpu() && record.scalar_type() == at::kByte && record.is_contiguous() &&
                        record.numel() == sizeof(Plan) && plan->magic == kMagic && plan->version == kVersion,
                    "the plan tensor is not a plan of this version of minifloat: make it with minifloat.ops.prepare");
  return *plan;
}

const Operand& operand_of(const at::Tensor& record) {
  TORCH_CHECK_VALUE(record.is_cpu() && record.scalar_type() == at::kByte && record.is_contiguous() &&
                        record.numel() == sizeof(Operand),
                    "the operand tensor is not an operand record: make it with minifloat.ops.records.operand_record");
  return *static_cast<const Operand*>(record.const_data_ptr());
}

at::Tensor as_floats(const at::Tensor& x, int64_t k, const char* op) {
  const auto type = x.scalar_type();
  TORCH_CHECK_VALUE(x.is_cpu(), op, ": x is on ", x.device(), " but the weight is on the CPU");
  TORCH_CHECK_VALUE(type == at::kFloat || type == at::kBFloat16 || type == at::kHalf, op, ": x is ", type,
                    "; expected float32, bfloat16 or float16");
  TORCH_CHECK_VALUE(x.dim() >= 1 && x.size(-1) == k, op, ": x has shape ", x.sizes(), " but the weight has K=", k);
  return type == at::kFloat && x.is_contiguous() ? x : x.to(at::kFloat).contiguous();
}

int64_t row_count(const at::Tensor& x) { return c10::multiply_integers(x.sizes().slice(0, x.dim() - 1)); }

at::Tensor as_rows(const at::Tensor& x, int64_t k, const char* op) {
  const at::Tensor floats = as_floats(x, k, op);
  return floats.reshape({row_count(floats), k});
}

namespace {

void check_bits(int64_t bits) { TORCH_CHECK_VALUE(bits >= 1 && bits <= 8, "bits must be 1 to 8, got ", bits); }

int64_t grain(int64_t per_row) { return std::max<int64_t>(1, 32768 / std::max<int64_t>(1, per_row)); }

at::Tensor pack(const at::Tensor& codes, int64_t bits) {
  check_bits(bits);
  TORCH_CHECK_VALUE(codes.scalar_type() == at::kByte && codes.dim() == 2, "pack: codes must be uint8 (rows, K), got ",
                    codes.scalar_type(), " of shape ", codes.sizes());
  const at::Tensor from = codes.contiguous();
  const int64_t rows = from.size(0), k = from.size(1), bytes = ceil_div(k * bits, 8);
  at::Tensor out = at::empty({rows, bytes}, from.options());
  const uint8_t* source = from.const_data_ptr<uint8_t>();
  uint8_t* target = out.data_ptr<uint8_t>();
  at::parallel_for(0, rows, grain(k), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      for (int64_t i = 0; i < k; ++i)
        TORCH_CHECK_VALUE(source[r * k + i] >> bits == 0, "pack: code ", int(source[r * k + i]), " at (", r, ", ", i,
                          ") does not fit in ", bits, " bits");
      pack_row(source + r * k, bits, k, target + r * bytes, bytes);
    }
  });
  return out;
}

at::Tensor unpack(const at::Tensor& packed, int64_t bits, int64_t k) {
  check_bits(bits);
  const int64_t bytes = ceil_div(k * bits, 8);
  TORCH_CHECK_VALUE(packed.scalar_type() == at::kByte && packed.dim() == 2 && packed.size(1) == bytes,
                    "unpack: K=", k, " at ", bits, " bits takes rows of ", bytes, " uint8 bytes, got ",
                    packed.scalar_type(), " of shape ", packed.sizes());
  const at::Tensor from = packed.contiguous();
  at::Tensor out = at::empty({from.size(0), k}, from.options());
  const uint8_t* source = from.const_data_ptr<uint8_t>();
  uint8_t* target = out.data_ptr<uint8_t>();
  at::parallel_for(0, from.size(0), grain(k), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) unpack_row(source + r * bytes, bits, k, target + r * k);
  });
  return out;
}

int64_t groups_of(const Operand& o, int64_t k) {
  TORCH_CHECK_VALUE(o.granularity != kGroup || k % o.group_size == 0, "K=", k, " is not a multiple of the group size ",
                    o.group_size);
  return o.granularity == kGroup ? k / o.group_size : 1;
}

using Quantized = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

// Codes (rows, k), scales and zero points (rows, groups) in float32, second-level scale (0-d). Scales and zero points that
// are given are used instead of found; zero_points is empty for formats without.
Quantized quantize(const at::Tensor& x, const at::Tensor& record, const std::optional<at::Tensor>& scales,
                   const std::optional<at::Tensor>& zero_points, double tensor_scale) {
  const Operand& o = operand_of(record);
  TORCH_CHECK_VALUE(x.dim() == 2, "quantize: x must be (rows, K), got shape ", x.sizes());
  const int64_t rows = x.size(0), k = x.size(1), groups = groups_of(o, k);
  const at::Tensor from = as_rows(x, k, "quantize");
  const float* source = from.const_data_ptr<float>();
  const auto options = from.options();
  at::Tensor codes = at::empty({rows, k}, options.dtype(at::kByte));
  at::Tensor out_scales, out_zero_points = at::empty({0}, options);
  Shared shared;
  if (scales.has_value()) {
    out_scales = scales->to(at::kFloat).expand({rows, groups}).contiguous();
    if (o.has_zero_point) out_zero_points = zero_points.value().to(at::kFloat).expand({rows, groups}).contiguous();
    shared.tensor_scale = tensor_scale;
  } else {
    out_scales = at::empty({rows, groups}, options);
    if (o.has_zero_point) out_zero_points = at::empty({rows, groups}, options);
    shared = active_kernels().shared_scale(o, source, from.numel());
  }
  const CodesArgs args{&o, rows, k, groups, codes.data_ptr<uint8_t>(), out_scales.data_ptr<float>(),
                       o.has_zero_point ? out_zero_points.data_ptr<float>() : nullptr, scales.has_value(), shared};
  at::parallel_for(0, rows, grain(k), [&](int64_t begin, int64_t end) {
    active_kernels().quantize_codes(args, source, begin, end);
  });
  return {codes, out_scales, out_zero_points, at::scalar_tensor(shared.tensor_scale, options)};
}

at::Tensor dequantize(const at::Tensor& codes, const at::Tensor& scales, const std::optional<at::Tensor>& zero_points,
                      double tensor_scale, const at::Tensor& record) {
  const Operand& o = operand_of(record);
  TORCH_CHECK_VALUE(codes.scalar_type() == at::kByte && codes.dim() == 2, "dequantize: codes must be uint8 (rows, K), got ",
                    codes.scalar_type(), " of shape ", codes.sizes());
  const at::Tensor from = codes.contiguous();
  const int64_t rows = from.size(0), k = from.size(1), groups = groups_of(o, k);
  const at::Tensor all_scales = scales.to(at::kFloat).expand({rows, groups}).contiguous();
  at::Tensor all_zero_points;
  if (zero_points.has_value()) all_zero_points = zero_points->to(at::kFloat).expand({rows, groups}).contiguous();
  at::Tensor out = at::empty({rows, k}, from.options().dtype(at::kFloat));
  Shared shared;
  shared.tensor_scale = tensor_scale;
  const CodesArgs args{&o, rows, k, groups, from.data_ptr<uint8_t>(), all_scales.data_ptr<float>(),
                       zero_points.has_value() ? all_zero_points.data_ptr<float>() : nullptr, true, shared};
  float* target = out.data_ptr<float>();
  at::parallel_for(0, rows, grain(k), [&](int64_t begin, int64_t end) {
    active_kernels().dequantize(args, target, begin, end);
  });
  return out;
}

// Bytes that kernels stream from memory. Large ones lie on huge pages: with few rows, 4 KiB pages cost up to half of the rate.
// They are mapped anew, because malloc hands out memory again that others left on small pages, where it would stay.
at::Tensor streamed_bytes(int64_t bytes, const at::TensorOptions& options) {
  constexpr size_t kHugePage = size_t(1) << 21;
  if (size_t(bytes) < kHugePage) return at::empty({bytes}, options);
  const size_t length = ceil_div(bytes, kHugePage) * kHugePage;
  void* const mapped = mmap(nullptr, length + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  TORCH_CHECK_WITH(OutOfMemoryError, mapped != MAP_FAILED, "pack_weight: no ", length, " bytes of memory for a weight's layout");
  char* const first = static_cast<char*>(mapped);
  const size_t before = -reinterpret_cast<uintptr_t>(first) % kHugePage;  // up to where a huge page may begin
  char* const data = first + before;
  if (before) munmap(first, before);
  munmap(data + length, kHugePage - before);
  madvise(data, bytes, MADV_HUGEPAGE);  // a wish: where it is refused, small pages serve
  return at::from_blob(data, {bytes}, [length](void* at) { munmap(at, length); }, options);
}

// From canonical storage to the kernels' layout (kernels/cpu/layout.h): one byte tensor.
at::Tensor pack_weight(const at::Tensor& packed, const at::Tensor& scales, const std::optional<at::Tensor>& zero_points,
                       const at::Tensor& record) {
  const Plan& p = plan_of(record);
  const Layout l = layout_of(p);
  const int64_t row_bytes = ceil_div(p.k * p.weight.bits, 8);
  const int64_t scale_count = p.weight.granularity == kTensor ? 1 : p.n * l.groups;
  TORCH_CHECK_VALUE(packed.scalar_type() == at::kByte && packed.sizes() == at::IntArrayRef({p.n, row_bytes}),
                    "pack_weight: codes must be uint8 of shape [", p.n, ", ", row_bytes, "], got ", packed.scalar_type(),
                    " of shape ", packed.sizes());
  TORCH_CHECK_VALUE(scales.numel() == scale_count && scales.element_size() == scale_bytes(p.weight),
                    "pack_weight: expected ", scale_count, " scales of ", scale_bytes(p.weight), " bytes, got ",
                    scales.numel(), " of ", scales.element_size());
  TORCH_CHECK_VALUE(zero_points.has_value() == bool(p.weight.has_zero_point) &&
                        (!zero_points.has_value() || (zero_points->numel() == scale_count && zero_points->element_size() == 1)),
                    "pack_weight: zero points must be given exactly when the spec has them, one byte per scale");
  const at::Tensor codes = packed.contiguous(), all_scales = scales.contiguous();
  const at::Tensor points = zero_points.has_value() ? zero_points->contiguous() : at::Tensor();
  const Canonical from{codes.data_ptr<uint8_t>(), row_bytes, static_cast<uint8_t*>(all_scales.data_ptr()),
                       points.defined() ? points.data_ptr<uint8_t>() : nullptr};
  // Kernels with a dot product instruction have no use for residues.
  std::optional<ResidueWriter> residues;
  if (residue_bits(p) && !active_kernels().traits.has_dot) {
    residues.emplace(p, from);
    at::parallel_for(0, l.panels, 1, [&](int64_t begin, int64_t end) { residues->collect(begin, end); });
  }
  const int64_t residue_bytes = residues ? residues->bytes() : 0;
  at::Tensor out = streamed_bytes(l.bytes + residue_bytes, codes.options());
  uint8_t* target = out.data_ptr<uint8_t>();
  at::parallel_for(0, l.panels, 1, [&](int64_t begin, int64_t end) { pack_panels(p, from, target, begin, end); });
  count_marks(p, target);
  if (residue_bytes) residues->write(target);
  return out;
}

// The inverse: packed codes, scales as raw bytes, zero points (empty without).
std::tuple<at::Tensor, at::Tensor, at::Tensor> restore_weight(const at::Tensor& weight, const at::Tensor& record) {
  const Plan& p = plan_of(record);
  const Layout l = layout_of(p);
  TORCH_CHECK_VALUE(weight.is_cpu() && weight.is_contiguous() && are_layout(p, weight.const_data_ptr<uint8_t>(), weight.numel()),
                    "restore_weight: expected ", l.bytes, " contiguous bytes on the CPU, got ", weight.numel());
  const int64_t row_bytes = ceil_div(p.k * p.weight.bits, 8);
  const bool one = p.weight.granularity == kTensor;
  const int64_t rows = one ? 1 : p.n, groups = one ? 1 : l.groups;
  at::Tensor codes = at::empty({p.n, row_bytes}, weight.options());
  at::Tensor scales = at::empty({rows, groups * scale_bytes(p.weight)}, weight.options());
  at::Tensor points = at::empty({p.weight.has_zero_point ? rows : 0, groups}, weight.options());
  const Canonical to{codes.data_ptr<uint8_t>(), row_bytes, scales.data_ptr<uint8_t>(),
                     p.weight.has_zero_point ? points.data_ptr<uint8_t>() : nullptr};
  const uint8_t* source = weight.const_data_ptr<uint8_t>();
  at::parallel_for(0, l.panels, 1, [&](int64_t begin, int64_t end) { restore_panels(p, source, to, begin, end); });
  return {codes, scales, points};
}

}  // namespace

TORCH_LIBRARY_IMPL(minifloat, CPU, m) {
  m.impl("pack", pack);
  m.impl("unpack", unpack);
  m.impl("quantize", quantize);
  m.impl("dequantize", dequantize);
  m.impl("pack_weight", pack_weight);
  m.impl("restore_weight", restore_weight);
}

}  // namespace minifloat
