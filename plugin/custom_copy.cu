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
};
static_assert(sizeof(Pieces) <= 4096, "kernel arguments are limited to 4 KiB");

constexpr int kThreads = 256;
constexpr int64_t kBytesPerBlock = kThreads * 16 * 4;  // four 16-byte loads a thread

/** Copies `size` bytes with words of type Word, all blocks of this row together; dst and src may both be
 *  off a word's boundary, but by the same number of bytes. */
template <typename Word>
__device__ void CopyWords(uint8_t *dst, const uint8_t *src, int64_t size) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t threads = static_cast<int64_t>(gridDim.x) * blockDim.x;
  const int64_t misaligned = reinterpret_cast<uintptr_t>(dst) % sizeof(Word);
  const int64_t head = misaligned == 0 ? 0 : min(static_cast<int64_t>(sizeof(Word)) - misaligned, size);
  const int64_t words = (size - head) / static_cast<int64_t>(sizeof(Word));
  const int64_t tail = head + words * static_cast<int64_t>(sizeof(Word));

  auto *dst_words = reinterpret_cast<Word *>(dst + head);
  const auto *src_words = reinterpret_cast<const Word *>(src + head);
  for (int64_t i = thread; i < words; i += threads) dst_words[i] = src_words[i];

  // Fewer than 16 bytes before the words, and as many after: one byte a thread.
  if (thread < head) dst[thread] = src[thread];
  if (thread < size - tail) dst[tail + thread] = src[tail + thread];
}

/** Row y of the grid copies piece y. */
__global__ void __launch_bounds__(kThreads) CopyPieces(const __grid_constant__ Pieces pieces) {
  const Piece &piece = pieces.piece[blockIdx.y];
  auto *dst = static_cast<uint8_t *>(piece.dst);
  const auto *src = static_cast<const uint8_t *>(piece.src);
  // The widest word that both addresses reach together; DALI's own buffers nearly always allow 16 bytes.
  const uintptr_t apart = reinterpret_cast<uintptr_t>(dst) ^ reinterpret_cast<uintptr_t>(src);
  if (apart % 16 == 0) {
    CopyWords<uint4>(dst, src, piece.size);
  } else if (apart % 4 == 0) {
    CopyWords<uint32_t>(dst, src, piece.size);
  } else {
    CopyWords<uint8_t>(dst, src, piece.size);
  }
}

/** Starts the copies of `count` pieces (1 to kPiecesPerLaunch), the longest of `longest` bytes. */
void LaunchCopy(const Pieces &pieces, int count, int64_t longest, cudaStream_t stream) {
  // Rows are as wide as the longest piece asks; blocks without work leave at once, and past the limit a
  // thread takes more rounds.
  const int64_t blocks = std::clamp<int64_t>((longest + kBytesPerBlock - 1) / kBytesPerBlock, 1, 4096);
  CopyPieces<<<dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(count)), kThreads, 0, stream>>>(pieces);
}

// --- The operator. ---

template <>
void CustomCopy<::dali::GPUBackend>::RunImpl(::dali::Workspace &ws) {
  const auto &input = ws.Input<::dali::GPUBackend>(0);
  auto &output = ws.Output<::dali::GPUBackend>(0);
  CopyMetadata(output, input);
  const cudaStream_t stream = ws.stream();

  const auto &shape = input.shape();
  const int64_t element_size = input.type_info().size();
  Pieces pieces;
  int count = 0;
  int64_t longest = 0;
  auto flush = [&] {
    if (count == 0) return;
    LaunchCopy(pieces, count, longest, stream);
    CUDA_CALL(cudaGetLastError());
    count = 0;
    longest = 0;
  };
  for (int i = 0; i < shape.num_samples(); i++) {
    const int64_t size = shape.tensor_size(i) * element_size;
    if (size == 0) continue;
    auto *dst = static_cast<uint8_t *>(output.raw_mutable_tensor(i));
    const auto *src = static_cast<const uint8_t *>(input.raw_tensor(i));
    // Samples that follow one another in both buffers are one piece: a batch in one block is one copy.
    if (count > 0) {
      Piece &last = pieces.piece[count - 1];
      if (static_cast<uint8_t *>(last.dst) + last.size == dst &&
          static_cast<const uint8_t *>(last.src) + last.size == src) {
        last.size += size;
        longest = std::max(longest, last.size);
        continue;
      }
    }
    if (count == kPiecesPerLaunch) flush();
    pieces.piece[count++] = {dst, src, size};
    longest = std::max(longest, size);
  }
  flush();
}

}  // namespace custom_copy

DALI_REGISTER_OPERATOR(CustomCopy, ::custom_copy::CustomCopy<::dali::GPUBackend>, ::dali::GPU);
