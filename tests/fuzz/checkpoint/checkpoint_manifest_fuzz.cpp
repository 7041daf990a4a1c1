// Any bytes as a checkpoint's manifest. Its checksum would refuse almost all of them, so the fuzzer's text is given the
// right one.
#include <cstdint>
#include <string>

#include "lib/base/digest.hpp"
#include "trainer/checkpoint/manifest.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace pitcrew;
  std::string text(reinterpret_cast<const char*>(data), size);
  (void)trainer::decode_manifest(text).ok();

  constexpr std::string_view kStart = "{\"checksum\":\"";
  if (!text.starts_with(kStart) || text.size() < kStart.size() + 16) return 0;
  text.replace(kStart.size(), 16, 16, '0');
  text.replace(kStart.size(), 16, hex64(xxh3(text)));
  const auto manifest = trainer::decode_manifest(text);
  if (!manifest) return 0;
  for (const auto& tensor : manifest->tensors) {
    for (const auto& part : tensor.parts) {
      const auto& file = manifest->files[part.file];
      PITCREW_INVARIANT(part.offset + part.count * trainer::size_of(tensor.dtype) <= file.bytes,
                        "every part lies within its file");
    }
  }
  const auto again = trainer::decode_manifest(trainer::encode(*manifest));
  PITCREW_INVARIANT(again && trainer::encode(*again) == trainer::encode(*manifest), "a manifest reads back");
  return 0;
}
