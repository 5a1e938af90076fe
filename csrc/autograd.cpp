// Gradients of minifloat::linear: to x (the activations' rounding is passed straight through) and to the bias.
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "ops.h"

namespace minifloat {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

at::Tensor call_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& plan,
                       const std::optional<at::Tensor>& bias, c10::SymInt out_features) {
  at::AutoDispatchBelowADInplaceOrView below;
  return linear_op().call(x, weight, plan, bias, std::move(out_features));
}

struct Linear : torch::autograd::Function<Linear> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& plan,
                            const std::optional<at::Tensor>& bias, c10::SymInt out_features) {
    ctx->save_for_backward({weight, plan});
    ctx->saved_data["in_features"] = x.sym_size(-1);
    if (bias.has_value()) ctx->saved_data["bias_type"] = bias->scalar_type();
    return call_linear(x, weight, plan, bias, std::move(out_features));
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    static const auto op =
        c10::Dispatcher::singleton()
            .findSchemaOrThrow("minifloat::linear_backward", "")
            .typed<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, c10::SymInt)>();
    const auto saved = ctx->get_saved_variables();
    const at::Tensor& grad = grads[0];
    at::Tensor grad_x, grad_bias;
    if (ctx->needs_input_grad(0)) grad_x = op.call(grad, saved[0], saved[1], ctx->saved_data["in_features"].toSymInt());
    if (ctx->saved_data.count("bias_type") && ctx->needs_input_grad(3)) {
      grad_bias = grad.reshape_symint({-1, grad.sym_size(-1)}).sum(0).to(ctx->saved_data["bias_type"].toScalarType());
    }
    return {grad_x, Variable(), Variable(), grad_bias, Variable()};
  }
};

at::Tensor linear_autograd(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& plan,
                           const std::optional<at::Tensor>& bias, c10::SymInt out_features) {
  const bool needs_grad =
      at::GradMode::is_enabled() && (x.requires_grad() || (bias.has_value() && bias->requires_grad()));
  if (!needs_grad) return call_linear(x, weight, plan, bias, std::move(out_features));
  return Linear::apply(x, weight, plan, bias, std::move(out_features));
}

}  // namespace

const c10::TypedOperatorHandle<LinearSignature>& linear_op() {
  static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("minifloat::linear", "").typed<LinearSignature>();
  return op;
}

TORCH_LIBRARY_IMPL(minifloat, Autograd, m) { m.impl("linear", linear_autograd); }

}  // namespace minifloat
