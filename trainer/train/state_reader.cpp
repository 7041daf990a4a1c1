#include "trainer/train/state_reader.hpp"

#include "lib/base/digest.hpp"

namespace pitcrew::trainer {
namespace {

// Where a tensor of the state lies: in one piece, or in two halves.
std::vector<Digest> parts_of(const StateTensor& tensor) {
  if (tensor.remainders == nullptr) return {{.data = tensor.data, .bytes = tensor.bytes()}};
  const size_t half = tensor.bytes() / 2;
  return {{.data = tensor.data, .bytes = half}, {.data = tensor.remainders, .bytes = half}};
}

size_t chunks_of(const StateTensor& tensor) {
  size_t chunks = 0;
  for (const Digest& part : parts_of(tensor)) chunks += part.count();
  return chunks;
}

size_t chunks_of_all(const std::vector<StateTensor>& tensors) {
  size_t chunks = 0;
  for (const StateTensor& tensor : tensors) chunks += chunks_of(tensor);
  return chunks;
}

}  // namespace

template <typename T>
uint64_t StateReader<T>::bytes(const std::vector<StateTensor>& tensors) {
  return chunks_of_all(tensors) * sizeof(uint64_t) + sizeof(double);
}

template <typename T>
Result<std::unique_ptr<StateReader<T>>> StateReader<T>::create(const std::vector<StateTensor>& tensors, Device& device,
                                                               Kernels<T>& kernels, Stream& stream) {
  std::unique_ptr<StateReader> reader(new StateReader(kernels, stream));
  const size_t bytes = chunks_of_all(tensors) * sizeof(uint64_t);
  PITCREW_ASSIGN(reader->digests_, device.allocate("digests of the state", bytes));
  PITCREW_ASSIGN(reader->host_digests_, device.allocate_host("digests of the state", bytes));
  PITCREW_ASSIGN(reader->sum_, device.allocate("square sum", sizeof(double)));
  PITCREW_ASSIGN(reader->host_sum_, device.allocate_host("square sum", sizeof(double)));
  return reader;
}

template <typename T>
std::vector<uint64_t> StateReader<T>::digests(const std::vector<StateTensor>& tensors) {
  size_t chunks = 0;
  for (const StateTensor& tensor : tensors) {
    for (Digest op : parts_of(tensor)) {
      op.digests = digests_.as<uint64_t>() + chunks;
      if (op.bytes > 0) kernels_.enqueue(stream_, op);
      chunks += op.count();
    }
  }
  stream_.copy(host_digests_.data(), digests_.data(), chunks * sizeof(uint64_t));
  stream_.synchronize();
  std::vector<uint64_t> digests;
  const auto* chunk = host_digests_.as<uint64_t>();
  for (const StateTensor& tensor : tensors) {
    const size_t count = chunks_of(tensor);
    digests.push_back(xxh3(chunk, count * sizeof(uint64_t)));
    chunk += count;
  }
  return digests;
}

template <typename T>
double StateReader<T>::square_sum(const StateTensor& tensor) {
  if (tensor.held() == 0) return 0;
  if (tensor.remainders != nullptr) return joined_square_sum(tensor);
  kernels_.enqueue(stream_,
                   SquareSum<Wide<T>>{tensor.held(), reinterpret_cast<const Wide<T>*>(tensor.data), sum_.as<double>()});
  stream_.copy(host_sum_.data(), sum_.data(), sizeof(double));
  stream_.synchronize();
  return *host_sum_.as<double>();
}

// Asked for only when replicas differ, so on the host, which takes no memory of the device.
template <typename T>
double StateReader<T>::joined_square_sum(const StateTensor& tensor) {
  std::vector<BF16> weights(tensor.held());
  std::vector<uint16_t> remainders(tensor.held());
  stream_.copy(weights.data(), tensor.data, weights.size() * sizeof(BF16));
  stream_.copy(remainders.data(), tensor.remainders, remainders.size() * sizeof(uint16_t));
  stream_.synchronize();
  double sum = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    const double value = join_master({weights[i], remainders[i]});
    sum += value * value;
  }
  return sum;
}

template class StateReader<float>;
template class StateReader<BF16>;

}  // namespace pitcrew::trainer
