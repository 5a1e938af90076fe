// Test only: runs a block's threads as fibers, one at a time, until all have finished.
// A barrier is a generation number: fibers that arrived give way until the last arrival raises it.
// A missing barrier, or a missing wait for a copy, shows as a difference because warps drift apart as far as barriers allow.
#include <setjmp.h>
#include <ucontext.h>

#include <cstdio>
#include <cstdlib>
#include <deque>
#include <memory>
#include <vector>

#include "cuda_runtime.h"
#include "ptx_twin.h"

namespace shim {

Thread current;
dim3 grid;
unsigned threads = 0;

namespace {

constexpr size_t kStackBytes = 128 << 10;

struct Fiber {
  ucontext_t start;
  jmp_buf at;
  bool started = false, done = false;
  std::unique_ptr<char[]> stack{new char[kStackBytes]};
  std::deque<std::vector<Copy>> groups;  // committed copies, oldest first
  std::vector<Copy> open;
};
struct Barrier {
  unsigned arrived = 0, generation = 0;
};

std::vector<std::unique_ptr<Fiber>> fibers;
std::vector<Barrier> warps;
std::vector<uint32_t> slots;
std::vector<uint4> shared_bytes;
Barrier block;
ucontext_t scheduler_context;
jmp_buf scheduler;
const std::function<void()>* body;
unsigned progress;
bool reversed = false;

Fiber& self() { return *fibers[current.index]; }

void give_way() {
  if (!_setjmp(self().at)) _longjmp(scheduler, 1);
}

void arrive(Barrier& barrier, unsigned expected) {
  const unsigned generation = barrier.generation;
  if (++barrier.arrived == expected) {
    barrier.arrived = 0;
    ++barrier.generation;
    ++progress;
  }
  while (barrier.generation == generation) give_way();
}

void enter() {
  (*body)();
  if (!self().open.empty()) {
    std::fprintf(stderr, "shim: a thread ended with copies that it never committed\n");
    std::abort();
  }
  self().done = true;
  ++progress;
  _longjmp(scheduler, 1);
}

void resume(unsigned index) {
  Fiber& fiber = *fibers[index];
  current.index = index;
  if (_setjmp(scheduler)) return;
  if (fiber.started) _longjmp(fiber.at, 1);
  fiber.started = true;
  getcontext(&fiber.start);
  fiber.start.uc_stack.ss_sp = fiber.stack.get();
  fiber.start.uc_stack.ss_size = kStackBytes;
  fiber.start.uc_link = nullptr;
  makecontext(&fiber.start, enter, 0);
  swapcontext(&scheduler_context, &fiber.start);
}

// Until all of its threads have finished or wait for other warps. Returns how many finished.
unsigned run_warp(unsigned warp) {
  unsigned finished = 0, before;
  do {
    before = progress;
    for (unsigned i = 0; i < 32; ++i) {
      const unsigned index = warp * 32 + (reversed ? 31 - i : i);
      if (fibers[index]->done) continue;
      resume(index);
      finished += fibers[index]->done;
    }
  } while (progress != before);
  return finished;
}

bool run_block() {
  block = {};
  warps.assign((threads + 31) / 32, {});
  for (unsigned i = 0; i < threads; ++i) {
    fibers[i]->started = fibers[i]->done = false;
    fibers[i]->groups.clear();
    fibers[i]->open.clear();
  }
  // Each warp runs as far as it can before the next one starts: the most that warps can drift apart.
  for (unsigned left = threads; left;) {
    const unsigned before = progress, count = threads / 32;
    for (unsigned w = 0; w < count; ++w) left -= run_warp(reversed ? count - 1 - w : w);
    if (progress == before) {
      std::fprintf(stderr, "shim: block (%u, %u, %u) is stuck: its threads wait at different barriers\n", current.block_x,
                   current.block_y, current.block_z);
      return false;
    }
  }
  return true;
}

}  // namespace

void block_barrier() { arrive(block, threads); }
void warp_barrier() { arrive(warps[current.index / 32], 32); }
unsigned char* shared() { return reinterpret_cast<unsigned char*>(shared_bytes.data()); }
uint32_t (*warp_slots())[32] { return reinterpret_cast<uint32_t(*)[32]>(slots.data() + current.index / 32 * 256); }

void perform(const Copy& copy) {
  if (copy.valid) {
    std::memcpy(copy.to, copy.from, 16);
  } else {
    std::memset(copy.to, 0, 16);
  }
}

// A copy may happen at once or only when it is waited for: one order of the threads tries the one, the other the other.
void copy_later(const Copy& copy) {
  if (reversed) {
    perform(copy);
  } else {
    self().open.push_back(copy);
  }
}
void commit_copies() {
  self().groups.push_back(std::move(self().open));
  self().open.clear();
}
void wait_copies(int left) {
  auto& groups = self().groups;
  while (int(groups.size()) > left) {
    for (const Copy& copy : groups.front()) perform(copy);
    groups.pop_front();
  }
}

cudaError_t run(dim3 size, unsigned thread_count, size_t bytes, const std::function<void()>& kernel) {
  if (thread_count % 32) {
    std::fprintf(stderr, "shim: %u threads are not whole warps\n", thread_count);
    return cudaErrorInvalidValue;
  }
  grid = size, threads = thread_count, body = &kernel;
  while (fibers.size() < threads) fibers.push_back(std::make_unique<Fiber>());
  slots.assign(threads / 32 * 256, 0);
  for (current.block_z = 0; current.block_z < size.z; ++current.block_z)
    for (current.block_y = 0; current.block_y < size.y; ++current.block_y)
      for (current.block_x = 0; current.block_x < size.x; ++current.block_x) {
        shared_bytes.assign(bytes / 16 + 1, uint4{0x7fc00bad, 0x7fc00bad, 0x7fc00bad, 0x7fc00bad});  // never zeros
        if (!run_block()) return cudaErrorLaunchFailure;
      }
  return cudaSuccess;
}

}  // namespace shim

extern "C" void shim_reverse(int on) { shim::reversed = on; }
