// minifloat._C.linear: torch.ops.minifloat.linear, called without what it costs to call any op from Python.
//
// torch.ops parses arguments by the op's schema, boxes them and boxes the result. Of a call of one row that took 271 us, Python
// and torch.ops took 22: the weights that stream by leave little of their code in the caches. This calls the same dispatcher.
#include <ATen/PythonTorchFunctionTLS.h>
#include <pybind11/pybind11.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/autograd/python_variable.h>

#include "ops.h"

namespace minifloat {
namespace {

bool is_tensor(PyObject* object) { return THPVariable_CheckExact(object); }

// A function mode or a subclass of Tensor must see the op itself, and whatever is no tensor its error.
bool is_plain(PyObject* const* args, Py_ssize_t count) {
  if (count != 5 || at::impl::torch_function_mode_enabled() || !PyLong_CheckExact(args[4])) return false;
  int overflow = 0;
  PyLong_AsLongLongAndOverflow(args[4], &overflow);
  return !overflow && is_tensor(args[0]) && is_tensor(args[1]) && is_tensor(args[2]) && (args[3] == Py_None || is_tensor(args[3]));
}

PyObject* call_linear(PyObject*, PyObject* const* args, Py_ssize_t count) {
  HANDLE_TH_ERRORS
  if (!is_plain(args, count)) {
    static PyObject* const op =
        pybind11::object(pybind11::module_::import("torch").attr("ops").attr("minifloat").attr("linear").attr("default")).release().ptr();
    return PyObject_Vectorcall(op, args, count, nullptr);
  }
  std::optional<at::Tensor> bias;
  if (args[3] != Py_None) bias = THPVariable_Unpack(args[3]);
  const int64_t out_features = PyLong_AsLongLong(args[4]);
  at::Tensor y;
  {
    pybind11::gil_scoped_release no_gil;
    y = linear_op().call(THPVariable_Unpack(args[0]), THPVariable_Unpack(args[1]), THPVariable_Unpack(args[2]), bias, out_features);
  }
  return THPVariable_Wrap(std::move(y));
  END_HANDLE_TH_ERRORS
}

PyMethodDef methods[] = {{"linear", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(call_linear)), METH_FASTCALL,
                          "torch.ops.minifloat.linear(x, weight, plan, bias, out_features), quicker for eager calls"},
                         {nullptr, nullptr, 0, nullptr}};

}  // namespace

void add_linear(PyObject* module) { PyModule_AddFunctions(module, methods); }

}  // namespace minifloat
