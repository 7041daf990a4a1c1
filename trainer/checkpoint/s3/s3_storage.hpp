#pragma once

#include "trainer/checkpoint/s3/client.hpp"
#include "trainer/checkpoint/s3/upload.hpp"
#include "trainer/checkpoint/storage.hpp"

namespace pitcrew::trainer::s3 {

// Checkpoints in a bucket. Shards, which hold nearly all bytes, get keys that begin with two digits of a hash of their
// names (<prefix>data/7f/step-…/shard-…), so that S3 spreads the ranks of a save over its partitions; everything else
// has its name as key. Only the small files decide what is there: a checkpoint is there when its manifest is, a claim
// and a manifest are put on the condition that there is none.
//
// The clock outlives it. See docs/checkpoints-s3.md.
Result<std::unique_ptr<Storage>> open_s3_storage(const std::string& path, Variables variables, const Clock& clock,
                                                 Client::Settings settings = {}, PartUpload::Settings parts = {});

// The key of a file, without the prefix: shards of checkpoints are spread.
std::string key_of(const std::string& name);

}  // namespace pitcrew::trainer::s3
