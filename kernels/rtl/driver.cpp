// Drives a verilated bench from arrays, so that Python can feed a whole batch in one call.
//
// The bench is a generated wrapper: every port of every design sits at a multiple of 32 bits inside one wide in_i and one
// wide out_o, which Verilator stores as arrays of 32-bit words. So this file serves every design.

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "Vbench.h"
#include "verilated.h"

namespace {

struct Bench {
  VerilatedContext context;
  Vbench top{&context};
};

void clock(Vbench& top) {
  top.clk_i = 0;
  top.eval();
  top.clk_i = 1;
  top.eval();
}

}  // namespace

extern "C" {

void* minifloat_open() {
  Bench* bench = new Bench;
  std::memset(bench->top.in_i.data(), 0, sizeof(bench->top.in_i));
  bench->top.clk_i = 0;
  bench->top.eval();
  return bench;
}

void minifloat_close(void* handle) {
  Bench* bench = static_cast<Bench*>(handle);
  bench->top.final();
  delete bench;
}

// One clock a beat: the inputs are applied before the rising edge, the outputs are read after it.
// in: (beats, words of in_i). out: (beats, words of out_o).
void minifloat_run(void* handle, const uint32_t* in, uint32_t* out, size_t beats) {
  Vbench& top = static_cast<Bench*>(handle)->top;
  constexpr size_t in_bytes = sizeof(top.in_i), out_bytes = sizeof(top.out_o);
  for (size_t beat = 0; beat < beats; ++beat) {
    std::memcpy(top.in_i.data(), in + beat * (in_bytes / 4), in_bytes);
    clock(top);
    std::memcpy(out + beat * (out_bytes / 4), top.out_o.data(), out_bytes);
  }
}

}  // extern "C"
