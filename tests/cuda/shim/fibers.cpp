// Test only: runs a block's threads as fibers, one at a time, until all have finished.
// A barrier is a generation number: fibers that arrived give way until the last arrival raises it.
// A missing barrier, or a missing wait for a copy, shows as a difference because warps drift apart as far as barriers allow.
#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <vector>

#include "cuda/wgmma.cuh"

namespace shim {

Thread current;
dim3 grid;
unsigned threads = 0;
int shared_limit = 163 << 10;  // of an A100

namespace {

constexpr size_t kSharedWithoutAsking = 48 << 10;
std::map<const void*, size_t> granted_shared;  // to kernels that asked for more

constexpr size_t kStackBytes = 128 << 10;

struct Fiber {
  ucontext_t start;
  jmp_buf at;
  bool started = false, done = false;
  std::unique_ptr<char[]> stack{new char[kStackBytes]};
  std::deque<std::vector<Copy>> groups;  // committed copies, oldest first
  std::vector<Copy> open;
  std::vector<Copy> arrived;  // waited for, but not yet shown to the async proxy
  std::deque<std::vector<Product>> product_groups;
  std::vector<Product> open_products;
  std::map<uint32_t*, std::vector<uint32_t>> sums;  // what accumulators hold that products are still being added to
  std::map<uint32_t*, std::vector<uint32_t>> operands;  // and operands that products still read
  struct {
    const uint32_t* at = nullptr;
    std::vector<uint32_t> words;
  } fenced[2];  // accumulators and operands, as they were at the last fence
};
struct Barrier {
  unsigned arrived = 0, generation = 0;
};

std::vector<std::unique_ptr<Fiber>> fibers;
std::vector<Barrier> warps;
std::vector<uint32_t> slots;
std::vector<uint4> shared_bytes, async_bytes;  // as the threads see shared memory, and as the async proxy does
std::vector<Barrier> warpgroups;
Barrier block;
ucontext_t scheduler_context;
jmp_buf scheduler;
const std::function<void()>* body;
unsigned progress;
bool reversed = false;

Fiber& self() { return *fibers[current.index]; }

[[noreturn]] void fail(const char* what) {
  std::fprintf(stderr, "shim: thread %u of block (%u, %u, %u) %s\n", current.index, current.block_x, current.block_y,
               current.block_z, what);
  std::abort();
}

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
  if (!self().open.empty()) fail("ended with copies that it never committed");
  if (!self().open_products.empty() || !self().product_groups.empty()) fail("ended with products that it never waited for");
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
  warpgroups.assign((threads + 127) / 128, {});
  for (unsigned i = 0; i < threads; ++i) {
    fibers[i]->started = fibers[i]->done = false;
    fibers[i]->groups.clear();
    fibers[i]->open.clear();
    fibers[i]->arrived.clear();
    fibers[i]->sums.clear();
    fibers[i]->operands.clear();
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

unsigned char* async_view(void* at) { return reinterpret_cast<unsigned char*>(async_bytes.data()) + shared_offset(at); }

void perform(const Copy& copy) {
  if (copy.valid) {
    std::memcpy(copy.to, copy.from, 16);
  } else {
    std::memset(copy.to, 0, 16);
  }
}

// A copy may happen at once or only when it is waited for: one order of the threads tries the one, the other the other.
void copy_later(const Copy& copy) {
  if (reversed) perform(copy);
  std::memset(async_view(copy.to), 0xff, 16);
  self().open.push_back(copy);
}
void commit_copies() {
  self().groups.push_back(std::move(self().open));
  self().open.clear();
}
void wait_copies(int left) {
  auto& groups = self().groups;
  while (int(groups.size()) > left) {
    for (const Copy& copy : groups.front()) {
      if (!reversed) perform(copy);
      self().arrived.push_back(copy);
    }
    groups.pop_front();
  }
}

uint32_t shared_offset(const void* at) { return uint32_t(static_cast<const unsigned char*>(at) - shared()); }

void fence_async_proxy() {
  for (const Copy& copy : self().arrived) std::memcpy(async_view(copy.to), copy.to, 16);
  self().arrived.clear();
}

void fence_warpgroup(const uint32_t* d, int words, const uint32_t* a, int operand_words) {
  Fiber& f = self();
  f.fenced[0].at = d, f.fenced[0].words.assign(d, d + words);
  f.fenced[1].at = a, f.fenced[1].words.assign(a, a + operand_words);
  arrive(warpgroups[current.index / 128], 128);
}

// Hides registers behind poison until the product that uses them is complete; they must be as they were at the fence.
void hide(uint32_t* at, size_t words, int kind, uint32_t poison, std::map<uint32_t*, std::vector<uint32_t>>& hidden) {
  auto& fenced = self().fenced[kind];
  const ptrdiff_t first = at - fenced.at;
  if (!fenced.at || first < 0 || first + words > fenced.words.size() || !std::equal(at, at + words, &fenced.words[first]))
    fail("changed the operands of a product after the fence before it");
  if (!hidden.count(at)) hidden[at].assign(at, at + words);
  std::fill_n(at, words, poison);
  std::fill_n(&fenced.words[first], words, poison);  // a next product with them needs no other fence
}

void multiply_later(Product product) {
  Fiber& f = self();
  hide(product.d, 4 * product.tiles, 0, kPoisonSum, f.sums);
  hide(product.a, 4, 1, kPoisonOperand, f.operands);
  auto* slots = warp_slots();
  for (int i = 0; i < 4; ++i) slots[i][current.index % 32] = f.operands[product.a][i];
  arrive(warpgroups[current.index / 128], 128);
  for (int lane = 0; lane < 4; ++lane)
    for (int i = 0; i < 4; ++i) product.rows[lane][i] = slots[i][current.index % 32 / 4 * 4 + lane];
  arrive(warpgroups[current.index / 128], 128);
  f.open_products.push_back(product);
}

void add_now(const std::vector<Product>& products) {
  for (const Product& p : products) p.add(p, reinterpret_cast<unsigned char*>(async_bytes.data()), self().sums[p.d].data());
}
void commit_products() {
  if (!reversed) add_now(self().open_products);
  self().product_groups.push_back(std::move(self().open_products));
  self().open_products.clear();
}
void wait_products(int left) {
  Fiber& f = self();
  for (const auto& group : f.product_groups)
    for (const Product& p : group) {
      if (std::any_of(p.d, p.d + 4 * p.tiles, [](uint32_t word) { return word != kPoisonSum; }))
        fail("touched accumulators before it waited for their product");
      if (std::any_of(p.a, p.a + 4, [](uint32_t word) { return word != kPoisonOperand; }))
        fail("touched an operand in registers before it waited for its product");
    }
  while (int(f.product_groups.size()) > left) {
    if (reversed) add_now(f.product_groups.front());
    f.product_groups.pop_front();
  }
  const auto pending = [&](const uint32_t* at) {
    for (const auto& group : f.product_groups)
      for (const Product& p : group)
        if (p.d == at || p.a == at) return true;
    return false;
  };
  std::erase_if(f.sums, [&](const auto& entry) {
    if (pending(entry.first)) return false;
    std::copy(entry.second.begin(), entry.second.end(), entry.first);
    return true;
  });
  std::erase_if(f.operands, [&](const auto& entry) { return !pending(entry.first); });  // poison stays: nobody reads them
  arrive(warpgroups[current.index / 128], 128);
}

cudaError_t grant_shared(const void* kernel, int bytes) {
  if (bytes > shared_limit) {
    std::fprintf(stderr, "shim: %d bytes of shared memory are more than this GPU's %d\n", bytes, shared_limit);
    return cudaErrorInvalidValue;
  }
  granted_shared[kernel] = bytes;
  return cudaSuccess;
}

cudaError_t run(const void* kernel, dim3 size, unsigned thread_count, size_t bytes, const std::function<void()>& each) {
  if (bytes > kSharedWithoutAsking && bytes > granted_shared[kernel]) {
    std::fprintf(stderr, "shim: %zu bytes of shared memory, but %zu were granted\n", bytes, granted_shared[kernel]);
    return cudaErrorInvalidValue;
  }
  if (thread_count % 32) {
    std::fprintf(stderr, "shim: %u threads are not whole warps\n", thread_count);
    return cudaErrorInvalidValue;
  }
  grid = size, threads = thread_count, body = &each;
  while (fibers.size() < threads) fibers.push_back(std::make_unique<Fiber>());
  slots.assign(threads / 32 * 256, 0);
  for (current.block_z = 0; current.block_z < size.z; ++current.block_z)
    for (current.block_y = 0; current.block_y < size.y; ++current.block_y)
      for (current.block_x = 0; current.block_x < size.x; ++current.block_x) {
        shared_bytes.assign(bytes / 16 + 1, uint4{0x7fc00bad, 0x7fc00bad, 0x7fc00bad, 0x7fc00bad});  // never zeros
        async_bytes = shared_bytes;
        if (!run_block()) return cudaErrorLaunchFailure;
      }
  return cudaSuccess;
}

}  // namespace shim

extern "C" void shim_reverse(int on) { shim::reversed = on; }

// The least that any kernel may now have of those that asked since the last call.
extern "C" int shim_least_granted() {
  size_t least = shim::shared_limit + 1;
  for (const auto& [kernel, bytes] : shim::granted_shared) least = std::min(least, bytes);
  shim::granted_shared.clear();
  return int(least);
}
