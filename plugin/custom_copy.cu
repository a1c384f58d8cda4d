#include "custom_copy_kernel.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

namespace custom_copy {

constexpr int kThreads = 256;
constexpr int kUnroll = 4;  // loads that a thread has under way at once
constexpr int64_t kBytesPerBlock = kThreads * 16 * kUnroll;
constexpr int64_t kMaxBlocksPerPiece = 1 << 20;  // 16 GiB; past it a thread takes more rounds

/** Stores dst[0] to dst[words - 1], each as `load(index)` gives it, by all threads of this piece together. */
template <typename Load>
__device__ void CopyWords(uint4 *dst, int64_t words, int64_t thread, int64_t threads, Load load) {
  int64_t i = thread;
  for (; i + (kUnroll - 1) * threads < words; i += kUnroll * threads) {
    uint4 word[kUnroll];  // all loads before the first store: the compiler may not swap them, dst could be src
#pragma unroll
    for (int k = 0; k < kUnroll; k++) word[k] = load(i + k * threads);
#pragma unroll
    for (int k = 0; k < kUnroll; k++) dst[i + k * threads] = word[k];
  }
  for (; i < words; i += threads) dst[i] = load(i);
}

/** Each block works on one piece: the last whose first_block is not behind it. */
__global__ void __launch_bounds__(kThreads) CopyPieces(const __grid_constant__ Pieces pieces) {
  const int block = static_cast<int>(blockIdx.x);
  int row = 0;
  for (int step = kPiecesPerLaunch / 2; step > 0; step /= 2) {
    if (row + step < pieces.count && pieces.first_block[row + step] <= block) row += step;
  }
  const int first = pieces.first_block[row];
  const int end = row + 1 < pieces.count ? pieces.first_block[row + 1] : static_cast<int>(gridDim.x);
  const int64_t thread = static_cast<int64_t>(block - first) * kThreads + threadIdx.x;
  const int64_t threads = static_cast<int64_t>(end - first) * kThreads;

  const int64_t size = pieces.piece[row].size;
  auto *dst = static_cast<uint8_t *>(pieces.piece[row].dst);
  const auto *src = static_cast<const uint8_t *>(pieces.piece[row].src);
  // Words of 16 bytes are stored, from the first boundary in dst on.
  const int64_t head = min(static_cast<int64_t>(-reinterpret_cast<uintptr_t>(dst) % 16), size);
  int64_t words = (size - head) / 16;
  auto *dst_words = reinterpret_cast<uint4 *>(dst + head);
  const int apart = static_cast<int>(reinterpret_cast<uintptr_t>(src + head) % 16);
  if (apart == 0) {
    const auto *src_words = reinterpret_cast<const uint4 *>(src + head);
    CopyWords(dst_words, words, thread, threads, [=](int64_t i) { return src_words[i]; });
  } else {
    // src is off its boundary there: a word is put together from five words of 4 bytes, which are on theirs.
    const int bytes = apart % 4;
    const int bits = bytes * 8;
    const auto *quarters = reinterpret_cast<const uint32_t *>(src + head - bytes);
    // The fifth may not reach behind src: where it would, the last word is left to the bytes below.
    if (bytes != 0 && words > 0 && bytes + (size - head - words * 16) < 4) words--;
    CopyWords(dst_words, words, thread, threads, [=](int64_t i) {
      const uint32_t *q = quarters + 4 * i;
      const uint32_t q4 = bytes == 0 ? 0 : q[4];
      return make_uint4(__funnelshift_r(q[0], q[1], bits), __funnelshift_r(q[1], q[2], bits),
                        __funnelshift_r(q[2], q[3], bits), __funnelshift_r(q[3], q4, bits));
    });
  }
  // Fewer than 16 bytes before the words, fewer than 32 after: one byte a thread.
  const int64_t tail = head + words * 16;
  if (thread < head) dst[thread] = src[thread];
  if (thread < size - tail) dst[tail + thread] = src[tail + thread];
}

void LaunchCopy(Pieces &pieces, int count, cudaStream_t stream) {
  int64_t blocks = 0;
  for (int i = 0; i < count; i++) {
    pieces.first_block[i] = static_cast<int>(blocks);
    const int64_t wanted = (pieces.piece[i].size + kBytesPerBlock - 1) / kBytesPerBlock;
    blocks += std::clamp<int64_t>(wanted, 1, kMaxBlocksPerPiece);
  }
  pieces.count = count;
  CopyPieces<<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(pieces);
}

}  // namespace custom_copy
