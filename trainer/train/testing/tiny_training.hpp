#pragma once

#include <string>

#include <gtest/gtest.h>

#include "lib/base/testing/temp_folder.hpp"
#include "trainer/train/config.hpp"

namespace pitcrew::trainer {

// A folder with a text, and a configuration that trains a model of one layer on it: lanes of one sequence of 8 bytes.
class TinyTraining : public ::testing::Test {
 protected:
  TinyTraining() {
    std::string text;
    for (int i = 0; i < 400; ++i) text += "line " + std::to_string(i * i) + " of the text;";
    temporary_.write("text.txt", text);
  }

  TrainConfig tiny() const {
    TrainConfig config;
    config.model = {.kind = ModelKind::kLlama,
                    .layers = 1,
                    .width = 16,
                    .heads = 2,
                    .kv_heads = 2,
                    .mlp = 32,
                    .vocab = 256,
                    .context = 8};
    config.sequences = 8;
    config.micro = 1;
    config.tokens = 8;
    config.text = TextSettings{.paths = {folder_ + "/text.txt"}};
    return config;
  }

 private:
  TempFolder temporary_;

 protected:
  const std::string folder_ = temporary_.path();
};

}  // namespace pitcrew::trainer
