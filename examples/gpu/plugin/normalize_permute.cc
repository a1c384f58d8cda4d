#include "normalize_permute.h"

#include <cuda_fp16.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

namespace normalize_permute {

namespace {

// Below this many pixels a thread takes longer to wake than to convert its part.
constexpr int64_t kMinPixelsPerTask = 32 << 10;

// More tasks than threads: a thread that was descheduled then leaves its share to the others.
constexpr int64_t kTasksPerThread = 2;

/** What each of the 256 values becomes, as the bits of a float16. */
using Table = std::array<uint16_t, 256>;

Table TableOf(float mean, float factor) {
  Table table;
  for (int value = 0; value < 256; value++) {
    // CUDA's rounding, as on the GPU: that of DALI's float16 takes halves away from zero on the CPU.
    table[value] = static_cast<__half_raw>(__float2half_rn((static_cast<float>(value) - mean) * factor)).x;
  }
  return table;
}

/** One sample, and where its pixels begin in the batch seen as one run of pixels. */
struct Piece {
  int64_t begin;
  int64_t pixels;
  uint16_t *dst;
  const uint8_t *src;
};

/** Converts the pixels [from, to) of a sample. */
template <int kChannels>
void Convert(const Piece &piece, int64_t from, int64_t to, const Table *tables) {
  const uint8_t *src = piece.src + from * kChannels;
  for (int64_t pixel = from; pixel < to; pixel++, src += kChannels) {
    for (int c = 0; c < kChannels; c++) piece.dst[c * piece.pixels + pixel] = tables[c][src[c]];
  }
}

using ConvertFunction = void (*)(const Piece &, int64_t, int64_t, const Table *);
constexpr ConvertFunction kConvert[kMaxChannels] = {Convert<1>, Convert<2>, Convert<3>, Convert<4>};

/** Converts the pixels [begin, end) of the batch; `pieces` are in order and without gaps. */
void ConvertRange(const std::vector<Piece> &pieces, int64_t begin, int64_t end, int channels, const Table *tables) {
  auto piece = std::upper_bound(pieces.begin(), pieces.end(), begin,
                                [](int64_t offset, const Piece &p) { return offset < p.begin; }) - 1;
  for (; piece != pieces.end() && piece->begin < end; ++piece) {
    const int64_t from = std::max(begin, piece->begin) - piece->begin;
    const int64_t to = std::min(end - piece->begin, piece->pixels);
    kConvert[channels - 1](*piece, from, to, tables);
  }
}

}  // namespace

Arguments::Arguments(const ::dali::OpSpec &spec)
    : mean_(spec.GetRepeatedArgument<float>("mean")),
      std_(spec.GetRepeatedArgument<float>("std")),
      scale_(spec.GetArgument<float>("scale")) {
  const auto every = [](const std::vector<float> &values, auto good) {
    return std::all_of(values.begin(), values.end(), good);
  };
  const auto counts = [this] {
    return "mean has " + std::to_string(mean_.size()) + " values, and std has " + std::to_string(std_.size());
  };
  for (const auto *values : {&mean_, &std_}) {
    DALI_ENFORCE(!values->empty() && values->size() <= kMaxChannels,
                 "mean and std take one value for all channels, or one for each of up to 4: " + counts());
  }
  DALI_ENFORCE(mean_.size() == std_.size() || mean_.size() == 1 || std_.size() == 1,
               "mean and std must have as many values, unless one of them has a single one: " + counts());
  DALI_ENFORCE(every(mean_, [](float value) { return std::isfinite(value); }),
               "every value of mean must be a finite number");
  DALI_ENFORCE(every(std_, [](float value) { return std::isfinite(value) && value > 0; }),
               "every value of std must be a finite number above 0: it is divided by");
  DALI_ENFORCE(std::isfinite(scale_), "scale must be a finite number");
}

Channels Arguments::For(int channels) const {
  for (const auto *values : {&mean_, &std_}) {
    DALI_ENFORCE(values->size() == 1 || static_cast<int>(values->size()) == channels,
                 std::string(values == &mean_ ? "mean" : "std") + " has " + std::to_string(values->size()) +
                     " values, and the images have " + std::to_string(channels) +
                     " channels: give one for each, or one for all");
  }
  Channels parameters{};
  for (int c = 0; c < channels; c++) {
    parameters.mean[c] = mean_[mean_.size() == 1 ? 0 : c];
    parameters.factor[c] = scale_ / std_[std_.size() == 1 ? 0 : c];
  }
  return parameters;
}

::dali::TensorListShape<> Permuted(const ::dali::TensorListShape<> &shape, ::dali::DALIDataType type,
                                   const ::dali::TensorLayout &layout) {
  DALI_ENFORCE(type == DALI_UINT8, "the input must be uint8, as decoders give it: cast it before");
  DALI_ENFORCE(shape.sample_dim() == 3,
               "the input must have 3 dimensions (HWC), and has " + std::to_string(shape.sample_dim()));
  DALI_ENFORCE(layout.empty() || layout == "HWC", "the input's layout must be HWC, and is " + layout.str());
  ::dali::TensorListShape<> permuted(shape.num_samples(), 3);
  for (int i = 0; i < shape.num_samples(); i++) {
    const auto size = shape.tensor_shape_span(i);
    DALI_ENFORCE(size[2] >= 1 && size[2] <= kMaxChannels, "sample " + std::to_string(i) + " has " +
                                                              std::to_string(size[2]) + " channels: 1 to 4 are taken");
    DALI_ENFORCE(size[2] == ChannelsOf(shape), "sample " + std::to_string(i) + " has " + std::to_string(size[2]) +
                                                   " channels, and sample 0 has " + std::to_string(ChannelsOf(shape)) +
                                                   ": all of a batch must have as many");
    permuted.set_tensor_shape(i, ::dali::TensorShape<>{size[2], size[0], size[1]});
  }
  return permuted;
}

template <>
void NormalizePermute<::dali::CPUBackend>::RunImpl(::dali::Workspace &ws) {
  const auto &input = ws.Input<::dali::CPUBackend>(0);
  auto &output = ws.Output<::dali::CPUBackend>(0);
  CopyMetadata(output, input);

  const auto &shape = input.shape();
  const int channels = ChannelsOf(shape);
  std::vector<Piece> pieces;
  pieces.reserve(shape.num_samples());
  int64_t total = 0;
  for (int i = 0; i < shape.num_samples(); i++) {
    const int64_t pixels = shape.tensor_size(i) / channels;
    if (pixels == 0) continue;  // may have no memory at all
    pieces.push_back({total, pixels, static_cast<uint16_t *>(output.raw_mutable_tensor(i)),
                      static_cast<const uint8_t *>(input.raw_tensor(i))});
    total += pixels;
  }
  if (total == 0) return;

  const Channels parameters = arguments_.For(channels);
  std::array<Table, kMaxChannels> tables;
  for (int c = 0; c < channels; c++) tables[c] = TableOf(parameters.mean[c], parameters.factor[c]);

  // Cut by pixels and not by samples, as CustomCopy cuts by bytes.
  auto &thread_pool = ws.GetThreadPool();
  const int64_t tasks = std::min<int64_t>(total / kMinPixelsPerTask, kTasksPerThread * thread_pool.NumThreads());
  if (tasks <= 1) {
    ConvertRange(pieces, 0, total, channels, tables.data());
    return;
  }
  for (int64_t task = 0; task < tasks; task++) {
    const int64_t begin = total * task / tasks;
    const int64_t end = total * (task + 1) / tasks;
    thread_pool.AddWork([&, begin, end](int) { ConvertRange(pieces, begin, end, channels, tables.data()); }, -task);
  }
  thread_pool.RunAll();
}

}  // namespace normalize_permute

DALI_REGISTER_OPERATOR(NormalizePermute, ::normalize_permute::NormalizePermute<::dali::CPUBackend>, ::dali::CPU);

// Seen in Python as `fn.normalize_permute`.
DALI_SCHEMA(NormalizePermute)
    .DocStr(R"(Images as decoders give them to what networks take: HWC and uint8 to CHW and float16.

Every value becomes ``(value - mean) * (scale / std)``, with the ``mean`` and ``std`` of its channel, computed in float and
rounded once. In one pass over the images, on the CPU or on the GPU, with the same bits.)")
    .NumInput(1)
    .NumOutput(1)
    .InputDox(0, "images", "TensorList of uint8 in HWC", "Images of 1 to 4 channels, of any sizes.")
    .InputDevice(0, ::dali::InputDevice::MatchBackend)
    .InputLayout(0, {"HWC"})
    .AddOptionalArg("mean", "What is subtracted: one value for all channels, or one for each.",
                    std::vector<float>{0.0f})
    .AddOptionalArg("std", "What is divided by: one value for all channels, or one for each; above 0.",
                    std::vector<float>{1.0f})
    .AddOptionalArg("scale", "What everything is multiplied by in the end.", 1.0f)
    .MakeStateless();
