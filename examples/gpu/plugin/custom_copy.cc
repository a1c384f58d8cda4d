#include "custom_copy.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

namespace custom_copy {

namespace {

// Below this many bytes a thread takes longer to wake than to copy its part.
constexpr int64_t kMinBytesPerTask = 128 << 10;

// More tasks than threads: a thread that was descheduled then leaves its share to the others.
constexpr int64_t kTasksPerThread = 2;

/** One sample, and where it begins in the batch seen as one run of bytes. */
struct Piece {
  int64_t begin;  // bytes before this sample
  int64_t size;   // bytes
  uint8_t *dst;
  const uint8_t *src;
};

/** Copies the bytes [begin, end) of the batch; `pieces` are in order and without gaps. */
void CopyRange(const std::vector<Piece> &pieces, int64_t begin, int64_t end) {
  auto piece = std::upper_bound(pieces.begin(), pieces.end(), begin,
                                [](int64_t offset, const Piece &p) { return offset < p.begin; }) - 1;
  for (; piece != pieces.end() && piece->begin < end; ++piece) {
    const int64_t from = std::max(begin, piece->begin) - piece->begin;
    const int64_t to = std::min(end - piece->begin, piece->size);
    std::memcpy(piece->dst + from, piece->src + from, to - from);
  }
}

}  // namespace

template <>
void CustomCopy<::dali::CPUBackend>::RunImpl(::dali::Workspace &ws) {
  const auto &input = ws.Input<::dali::CPUBackend>(0);
  auto &output = ws.Output<::dali::CPUBackend>(0);
  CopyMetadata(output, input);

  const auto &shape = input.shape();
  const int64_t element_size = input.type_info().size();
  std::vector<Piece> pieces;
  pieces.reserve(shape.num_samples());
  int64_t total = 0;
  for (int i = 0; i < shape.num_samples(); i++) {
    const int64_t size = shape.tensor_size(i) * element_size;
    if (size == 0) continue;  // may have no memory at all
    pieces.push_back({total, size, static_cast<uint8_t *>(output.raw_mutable_tensor(i)),
                      static_cast<const uint8_t *>(input.raw_tensor(i))});
    total += size;
  }

  // The work is cut by bytes and not by samples: one large sample is shared by all threads, many small
  // ones are joined, and a ragged batch is balanced without sorting.
  auto &thread_pool = ws.GetThreadPool();
  const int64_t tasks = std::min<int64_t>(total / kMinBytesPerTask, kTasksPerThread * thread_pool.NumThreads());
  if (tasks <= 1) {
    if (total > 0) CopyRange(pieces, 0, total);
    return;
  }
  for (int64_t task = 0; task < tasks; task++) {
    // total * task would overflow for no batch that fits in memory (2^63 / the number of tasks).
    const int64_t begin = total * task / tasks;
    const int64_t end = total * (task + 1) / tasks;
    thread_pool.AddWork([&pieces, begin, end](int) { CopyRange(pieces, begin, end); }, -task);
  }
  thread_pool.RunAll();
}

}  // namespace custom_copy

DALI_REGISTER_OPERATOR(CustomCopy, ::custom_copy::CustomCopy<::dali::CPUBackend>, ::dali::CPU);

// Seen in Python as `fn.custom_copy`.
DALI_SCHEMA(CustomCopy)
    .DocStr(R"(Copies the input to the output, on the CPU or on the GPU.

The output has the type, the shapes and the layout of the input, and memory of its own.)")
    .NumInput(1)
    .NumOutput(1)
    .InputDox(0, "data", "TensorList", "Batch to copy: any type, any number of dimensions.")
    .InputDevice(0, ::dali::InputDevice::MatchBackend)
    .AllowSequences()
    .SupportVolumetric()
    .MakeStateless();
