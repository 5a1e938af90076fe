// Scales and zero points of a warp's chunk: copied to shared memory while the chunk before is multiplied, then widened.
#pragma once

#include "narrow_space.h"
#include "ptx.cuh"

namespace minifloat::cuda {

// One stored scale as float32. Second-level factors are left out.
MF_DEVICE float widen_scale(const uint8_t* at, int64_t index, const ScaleCode& scale) {
  switch (scale.kind) {
    case kFloat32:
      return reinterpret_cast<const float*>(at)[index];
    case kBFloat16:
      return float_of(uint32_t(reinterpret_cast<const uint16_t*>(at)[index]) << 16);
    case kPowerOfTwo:  // code c is 2**(c - 127); 0 is the subnormal 2**-127
      return at[index] ? float_of(uint32_t(at[index]) << 23) : float_of(0x00400000u);
    default:
      return mul(float_of(uint32_t(at[index] & 0x7f) << scale.shift | uint32_t(at[index] & 0x80) << 24), scale.multiplier);
  }
}

// The zero point's distance from the lowest integer.
MF_DEVICE float widen_zero_point(const LinearParams& p, const uint8_t* at, int64_t index) {
  return float(at[index] ^ p.zero_point_mask);
}

MF_DEVICE int first_group(const LinearParams& p, int chunk) {
  const int group = p.group_of.quotient(chunk * p.slots);
  return group < p.groups ? group : p.groups - 1;
}

// Starts the copies of a chunk's scales. A panel's groups are contiguous, 16 scales each.
MF_DEVICE void stage_scales(const LinearParams& p, const ScaleSpace& space, int64_t panel, int chunk, int lane,
                            unsigned char* raw) {
  if (chunk >= p.chunks || space.raw_groups == 0) return;
  const int first = first_group(p, chunk), left = p.groups - first;
  const int groups = left < space.raw_groups ? left : space.raw_groups;
  const uint8_t* from = p.scales + (panel * p.groups + first) * 16 * p.scale_bytes;
  for (int i = lane * 16; i < groups * 16 * p.scale_bytes; i += 512) copy_async(raw + i, from + i, true);
  if (p.zero_points) {
    const uint8_t* points = p.zero_points + (panel * p.groups + first) * 16;
    unsigned char* to = raw + space.raw_groups * 16 * p.scale_bytes;
    for (int i = lane * 16; i < groups * 16; i += 512) copy_async(to + i, points + i, true);
  }
}

// From raw to wide, once the copies have arrived.
MF_DEVICE void widen_scales(const LinearParams& p, const ScaleSpace& space, int chunk, int lane,
                            const unsigned char* raw, float* wide) {
  if (chunk >= p.chunks) return;
  const int first = first_group(p, chunk), left = p.groups - first;
  for (int i = lane; i < space.wide_floats; i += 32) {
    const bool is_zero_point = i >= p.slots * 16;
    const int slot = i / 16 & (p.slots - 1);
    int group = p.group_of.quotient(chunk * p.slots + slot) - first;
    if (group >= left) group = left - 1;  // past the end of K, where x is zero
    const int at = group * 16 + i % 16;
    wide[i] = is_zero_point ? widen_zero_point(p, raw + space.raw_groups * 16 * p.scale_bytes, at)
                            : widen_scale(raw, at, p.scale);
  }
}

}  // namespace minifloat::cuda
