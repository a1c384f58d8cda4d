#pragma once

// Needs CUDA's headers alone: nvcc would read DALI's once for each architecture.

#include <cuda_runtime.h>

#include <cstdint>

namespace custom_copy {

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

/** Starts the copies of the first `count` pieces (1 to kPiecesPerLaunch). */
void LaunchCopy(Pieces &pieces, int count, cudaStream_t stream);

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

}  // namespace custom_copy
