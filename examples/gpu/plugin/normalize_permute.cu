#include "normalize_permute_kernel.h"

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace normalize_permute {

constexpr int kThreads = 256;
constexpr int kWord = 8;  // pixels of a plane that are stored at once: 16 bytes

/** Words of each plane that a thread stores: where there is only one plane, two were too few to be under way at once. */
__host__ __device__ constexpr int WordsPerThread(int channels) { return channels == 1 ? 4 : 2; }

__host__ __device__ constexpr int PixelsPerBlock(int channels) {
  return kThreads * WordsPerThread(channels) * kWord;
}

/** Where the word `index` (of 4 bytes) lies in shared memory: threads that are 1, 2, 4 or 8 words apart meet no bank. */
__device__ constexpr int Padded(int index) { return index + index / 32; }

/** The pixels of a block, in shared memory at the same distance from a multiple of 16 as in global memory. */
template <int kChannels>
struct Tile {
  // The planes' first words may begin up to 7 pixels apart, so a block sees 8 pixels of the next one.
  static constexpr int kBytes = (PixelsPerBlock(kChannels) + kWord) * kChannels;
  static constexpr int kWords = (kBytes + 15) / 4 + 2;
  uint32_t words[Padded(kWords) + 1];

  __device__ void SetByte(int index, uint8_t value) {
    reinterpret_cast<uint8_t *>(&words[Padded(index / 4)])[index % 4] = value;
  }

  /** Loads `size` bytes from `src`, by all threads of the block; the first of them lies at `src` % 16. */
  __device__ void Load(const uint8_t *src, int size) {
    constexpr int kRounds = (kBytes / 16 + kThreads - 1) / kThreads;
    const int phase = static_cast<int>(reinterpret_cast<uintptr_t>(src) % 16);
    const int head = min((16 - phase) % 16, size);
    const int quads = (size - head) / 16;
    const auto *src_quads = reinterpret_cast<const uint4 *>(src + head);
    const int thread = static_cast<int>(threadIdx.x);
    uint4 quad[kRounds];  // all loads before the first store
#pragma unroll
    for (int k = 0; k < kRounds; k++) {
      if (thread + k * kThreads < quads) quad[k] = src_quads[thread + k * kThreads];
    }
    const int first = (phase + head) / 4;
#pragma unroll
    for (int k = 0; k < kRounds; k++) {
      if (thread + k * kThreads < quads) {
        uint32_t *to = &words[Padded(first + 4 * (thread + k * kThreads))];  // 4 words within one row of 32
        to[0] = quad[k].x, to[1] = quad[k].y, to[2] = quad[k].z, to[3] = quad[k].w;
      }
    }
    // Fewer than 16 bytes before the words, fewer than 16 after: one byte a thread.
    if (thread < head) SetByte(phase + thread, src[thread]);
    const int tail = head + quads * 16;
    if (thread < size - tail) SetByte(phase + tail + thread, src[tail + thread]);
  }

  /** The bytes of 8 pixels, from `index` on. */
  __device__ void Read(int index, uint32_t (&bytes)[2 * kChannels]) const {
    const int bits = index % 4 * 8;
    uint32_t low = words[Padded(index / 4)];
#pragma unroll
    for (int i = 0; i < 2 * kChannels; i++) {
      const uint32_t high = words[Padded(index / 4 + i + 1)];
      bytes[i] = __funnelshift_r(low, high, bits);
      low = high;
    }
  }

  __device__ uint8_t Byte(int index) const { return words[Padded(index / 4)] >> (index % 4 * 8); }
};

__device__ inline float Normalized(uint32_t value, float mean, float factor) {
  return __fmul_rn(__fsub_rn(static_cast<float>(value), mean), factor);
}

__device__ inline uint16_t AsHalf(float value) { return __half_as_ushort(__float2half_rn(value)); }

/** Each block works on one sample: the last whose first_block is not behind it. */
template <int kChannels>
__global__ void __launch_bounds__(kThreads) NormalizeSamples(const __grid_constant__ Samples samples) {
  constexpr int kWordsPerThread = WordsPerThread(kChannels), kPixelsPerBlock = PixelsPerBlock(kChannels);
  __shared__ Tile<kChannels> tile;
  const int block = static_cast<int>(blockIdx.x);
  int row = 0;
  for (int step = kSamplesPerLaunch / 2; step > 0; step /= 2) {
    if (row + step < samples.count && samples.first_block[row + step] <= block) row += step;
  }
  const int64_t pixels = samples.sample[row].pixels;
  const auto *src = samples.sample[row].src;
  const int64_t first_word = static_cast<int64_t>(block - samples.first_block[row]) * kThreads * kWordsPerThread;
  const int64_t first_pixel = first_word * kWord;
  const int here = static_cast<int>(min(pixels - first_pixel, static_cast<int64_t>(kPixelsPerBlock + kWord)));

  const uint8_t *begin = src + first_pixel * kChannels;
  tile.Load(begin, here * kChannels);
  const int phase = static_cast<int>(reinterpret_cast<uintptr_t>(begin) % 16);
  // How many pixels lie before the first word of each plane.
  int heads[kChannels];
  uint16_t *planes[kChannels];
  bool alike = true;
#pragma unroll
  for (int c = 0; c < kChannels; c++) {
    planes[c] = samples.sample[row].dst + c * pixels;
    const int head = static_cast<int>(-(reinterpret_cast<uintptr_t>(planes[c]) / 2) % kWord);
    heads[c] = static_cast<int>(min(static_cast<int64_t>(head), pixels));
    alike = alike && heads[c] == heads[0];
  }
  __syncthreads();

  uint32_t bytes[2 * kChannels];
#pragma unroll
  for (int k = 0; k < kWordsPerThread; k++) {
    const int word = k * kThreads + static_cast<int>(threadIdx.x);  // of the block
#pragma unroll
    for (int c = 0; c < kChannels; c++) {
      const float mean = samples.channels.mean[c], factor = samples.channels.factor[c];
      const int pixel = word * kWord + heads[c];  // of the block
      if (pixel + kWord <= here) {
        if (c == 0 || !alike) tile.Read(phase + pixel * kChannels, bytes);
        uint32_t half[kWord / 2];
#pragma unroll
        for (int i = 0; i < kWord / 2; i++) {
          const int one = 2 * i * kChannels + c, other = one + kChannels;
          const float low = Normalized(bytes[one / 4] >> (one % 4 * 8) & 0xff, mean, factor);
          const float high = Normalized(bytes[other / 4] >> (other % 4 * 8) & 0xff, mean, factor);
          half[i] = AsHalf(low) | static_cast<uint32_t>(AsHalf(high)) << 16;
        }
        reinterpret_cast<uint4 *>(planes[c] + heads[c])[first_word + word] =
            make_uint4(half[0], half[1], half[2], half[3]);
      } else {
        // What is left of a plane behind its last word.
        for (int at = pixel; at < here; at++) {
          planes[c][first_pixel + at] = AsHalf(Normalized(tile.Byte(phase + at * kChannels + c), mean, factor));
        }
      }
      if (first_word == 0 && k == 0 && threadIdx.x < heads[c]) {
        const int at = static_cast<int>(threadIdx.x);
        planes[c][at] = AsHalf(Normalized(tile.Byte(phase + at * kChannels + c), mean, factor));
      }
    }
  }
}

void LaunchNormalize(Samples &samples, int count, int channels, cudaStream_t stream) {
  const int64_t pixels_per_block = PixelsPerBlock(channels);
  int64_t blocks = 0;
  for (int i = 0; i < count; i++) {
    samples.first_block[i] = static_cast<int>(blocks);
    blocks += (samples.sample[i].pixels + pixels_per_block - 1) / pixels_per_block;
  }
  samples.count = count;
  const auto grid = static_cast<unsigned>(blocks);
  switch (channels) {
    case 1: NormalizeSamples<1><<<grid, kThreads, 0, stream>>>(samples); break;
    case 2: NormalizeSamples<2><<<grid, kThreads, 0, stream>>>(samples); break;
    case 3: NormalizeSamples<3><<<grid, kThreads, 0, stream>>>(samples); break;
    default: NormalizeSamples<4><<<grid, kThreads, 0, stream>>>(samples); break;
  }
}

}  // namespace normalize_permute
