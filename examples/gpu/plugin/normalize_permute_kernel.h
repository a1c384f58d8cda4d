#pragma once

// Needs CUDA's headers alone, as custom_copy_kernel.h.

#include <cuda_runtime.h>

#include <cstdint>

namespace normalize_permute {

constexpr int kMaxChannels = 4;

/** What is done to a value of each channel: (value - mean) * factor, in float. */
struct Channels {
  float mean[kMaxChannels];
  float factor[kMaxChannels];
};

struct Sample {
  uint16_t *dst;  // float16: a plane of `pixels` for each channel
  const uint8_t *src;
  int64_t pixels;  // at least 1
};

// The samples travel as the kernel's argument (4 KiB at most on every architecture), see CustomCopy.
constexpr int kSamplesPerLaunch = 128;
struct Samples {
  Sample sample[kSamplesPerLaunch];
  int first_block[kSamplesPerLaunch];  // sample i is converted by the blocks from here to first_block[i + 1]
  int count;
  Channels channels;
};
static_assert(sizeof(Samples) <= 4096, "kernel arguments are limited to 4 KiB");

/** Starts the conversion of the first `count` samples (1 to kSamplesPerLaunch), all of them of `channels` channels. */
void LaunchNormalize(Samples &samples, int count, int channels, cudaStream_t stream);

}  // namespace normalize_permute
