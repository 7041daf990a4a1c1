#pragma once

#include "trainer/kernels/adamw.hpp"
#include "trainer/kernels/attention.hpp"
#include "trainer/kernels/cross_entropy.hpp"
#include "trainer/kernels/embedding.hpp"
#include "trainer/kernels/gelu.hpp"
#include "trainer/kernels/layernorm.hpp"
#include "trainer/kernels/matmul.hpp"
#include "trainer/kernels/reduce.hpp"
#include "trainer/kernels/rmsnorm.hpp"
#include "trainer/kernels/rope.hpp"
#include "trainer/kernels/swiglu.hpp"
