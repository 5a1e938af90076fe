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

// Where the ports of one AXI-Stream design sit, in words of in_i and out_o.
struct StreamPorts {
  uint32_t reset, s_data, s_words, s_valid, s_last, s_ready, m_data, m_words, m_valid, m_last, m_ready;
};

// Feeds beats of a stream and collects the answer, with random gaps on both sides.
// The source holds tvalid until the beat is taken; the sink's tready is random every clock.
// in: (in_beats, s_words); in_last: (in_beats). out: (out_beats, m_words); out_last: (out_beats).
// gap_in, gap_out: of 65536, how often the source or the sink pauses. Returns the clocks used; `limit` if it ran out of
// time, then *received says how far it came; 0 if the design changed an offered beat or withdrew it.
uint64_t minifloat_stream(void* handle, const StreamPorts* p, const uint32_t* in, const uint8_t* in_last, size_t in_beats,
                          uint32_t* out, uint8_t* out_last, size_t out_beats, uint32_t gap_in, uint32_t gap_out,
                          uint64_t seed, uint64_t limit, size_t* received) {
  Vbench& top = static_cast<Bench*>(handle)->top;
  uint32_t* to = top.in_i.data();
  uint32_t* from = top.out_o.data();
  uint64_t state = seed | 1;
  auto pauses = [&state](uint32_t gap) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (state >> 32 & 0xffff) < gap;
  };
  size_t sent = 0, got = 0;
  bool offering = false, waiting = false;
  to[p->reset] = 1;
  for (uint64_t t = 0; t < limit; ++t) {
    if (!offering && sent < in_beats) offering = !pauses(gap_in);
    to[p->s_valid] = offering;
    if (offering) {
      std::memcpy(to + p->s_data, in + sent * p->s_words, 4 * p->s_words);
      to[p->s_last] = in_last[sent];
    }
    to[p->m_ready] = !pauses(gap_out);
    top.clk_i = 0;
    top.eval();
    const bool valid = from[p->m_valid] & 1;
    if (waiting && !(valid && std::memcmp(out + got * p->m_words, from + p->m_data, 4 * p->m_words) == 0)) return 0;
    waiting = false;
    if (valid && got < out_beats) {
      std::memcpy(out + got * p->m_words, from + p->m_data, 4 * p->m_words);
      out_last[got] = from[p->m_last] & 1;
      waiting = !to[p->m_ready];
      got += to[p->m_ready];
    }
    if (offering && (from[p->s_ready] & 1)) {
      ++sent;
      offering = false;
    }
    top.clk_i = 1;
    top.eval();
    *received = got;
    if (got == out_beats && sent == in_beats) return t + 1;
  }
  return limit;
}

}  // extern "C"
