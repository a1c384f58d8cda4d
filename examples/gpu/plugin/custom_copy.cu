#include "custom_copy.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "dali/core/cuda_error.h"

namespace custom_copy {

// --- The kernel: needs CUDA alone, nothing of DALI. ---

struct Piece {
  void *dst;
  const void *src;
  int64_t size;  // bytes, at least 1
};

// The pieces travel as the kernel's argument (4 KiB at most on every architecture): no device memory to
// allocate, no copy to wait for, nothing to keep alive until the stream gets there.
constexpr int kPiecesPerLaunch = 128;
struct Pieces {
  Piece piece[kPiecesPerLaunch];
  int first_block[kPiecesPerLaunch];  // piece i is copied by the blocks from here to first_block[i + 1]
  int count;
};
static_assert(sizeof(Pieces) <= 4096, "kernel arguments are limited to 4 KiB");

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

/** Starts the copies of the first `count` pieces (1 to kPiecesPerLaunch). */
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

/** A batch, sample by sample: few pieces, and a launch whenever there are as many as one has room for. */
class Batch {
 public:
  explicit Batch(cudaStream_t stream) : stream_(stream) {}

  /** Samples that follow one another in both buffers are one piece: a batch in one block is one copy. */
  void Add(void *dst, const void *src, int64_t size) {
    if (size == 0) return;
    if (count_ > 0) {
      Piece &last = pieces_.piece[count_ - 1];
      if (static_cast<uint8_t *>(last.dst) + last.size == dst &&
          static_cast<const uint8_t *>(last.src) + last.size == src) {
        last.size += size;
        return;
      }
    }
    if (count_ == kPiecesPerLaunch) Flush();
    pieces_.piece[count_++] = {dst, src, size};
  }

  /** Starts what is left. Returns the number of launches since the beginning. */
  int Finish() {
    if (count_ > 0) Flush();
    return launches_;
  }

 private:
  void Flush() {
    LaunchCopy(pieces_, count_, stream_);
    count_ = 0;
    launches_++;
  }

  cudaStream_t stream_;
  Pieces pieces_;
  int count_ = 0;
  int launches_ = 0;
};

// --- The operator. ---

template <>
void CustomCopy<::dali::GPUBackend>::RunImpl(::dali::Workspace &ws) {
  const auto &input = ws.Input<::dali::GPUBackend>(0);
  auto &output = ws.Output<::dali::GPUBackend>(0);
  CopyMetadata(output, input);

  const auto &shape = input.shape();
  const int64_t element_size = input.type_info().size();
  Batch batch(ws.stream());
  for (int i = 0; i < shape.num_samples(); i++) {
    batch.Add(output.raw_mutable_tensor(i), input.raw_tensor(i), shape.tensor_size(i) * element_size);
  }
  if (batch.Finish() > 0) CUDA_CALL(cudaGetLastError());
}

}  // namespace custom_copy

DALI_REGISTER_OPERATOR(CustomCopy, ::custom_copy::CustomCopy<::dali::GPUBackend>, ::dali::GPU);
