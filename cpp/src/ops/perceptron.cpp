// perceptron(x, ...): two hidden layers with SiLU, nothing after the last, for compiled programs on the CPU.
//
// A block of rows goes through all three products before the next one begins, so hidden layers of 1024
// columns never leave the cache, and bias, SiLU and rounding cost no passes over memory. What atoms give to
// the first layer of an edge is added in the same way: rows of a table, picked by an index. For a backward
// pass the derivatives of SiLU are stored; perceptron_vjp multiplies back through the products with them.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <array>
#include <optional>
#include <tuple>
#include <vector>

#include "packed.h"
#include "tiles.h"

namespace orb_export {
namespace {

using at::Tensor;
using Optional = std::optional<Tensor>;

constexpr int64_t kBlock = 64, kSmallestBlock = 16;    // rows

int64_t rounded_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// Rows of a block between two products, in the form that the next one reads.
class Scratch {
 public:
  Scratch(Precision precision, int64_t columns) : stride_(rounded_up(columns, kTile)) {
    const int64_t size = kBlock * stride_;
    if (precision == Precision::kFloat32) wide_.resize(size);
    if (precision != Precision::kFloat32) high_.resize(size);
    if (precision == Precision::kSplit) low_.resize(size);
  }
  RowsOut out(int64_t column = 0) {
    return {shifted(wide_, column), shifted(high_, column), shifted(low_, column), stride_};
  }
  RowsIn in() { return {shifted(wide_, 0), shifted(high_, 0), shifted(low_, 0), stride_}; }

 private:
  template <class T>
  static T *shifted(std::vector<T> &values, int64_t by) {
    return values.empty() ? nullptr : values.data() + by;
  }
  int64_t stride_;
  std::vector<float> wide_;
  std::vector<uint16_t> high_, low_;
};

// Rows that are added to the first layer: table[index[row]], or table[row] without an index.
struct Addend {
  const float *table = nullptr;
  const int64_t *index = nullptr;
  int64_t stride = 0;
};

void add_rows(const Addend &addend, int64_t first, int64_t rows, int64_t column, int64_t columns,
              float *tile) {
  if (addend.table == nullptr) return;
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t row = addend.index ? addend.index[first + r] : first + r;
    const float *__restrict from = addend.table + row * addend.stride + column;
    float *__restrict to = tile + r * kTile;
    for (int64_t c = 0; c < columns; ++c) to[c] += from[c];
  }
}

void copy_tile(const float *tile, int64_t rows, int64_t columns, float *out, int64_t stride) {
  for (int64_t r = 0; r < rows; ++r) std::copy_n(tile + r * kTile, columns, out + r * stride);
}

struct Bias {
  const float *values;
  int64_t size;
  // (kTile), zeros where there are no columns left
  void tile(int64_t column, float *out) const {
    const int64_t count = std::min(kTile, size - column);
    std::copy_n(values + column, count, out);
    std::fill(out + count, out + kTile, 0.0f);
  }
};

Bias bias_of(const Tensor &bias, const char *name) {
  TORCH_CHECK(bias.dim() == 1 && bias.scalar_type() == at::kFloat && bias.is_contiguous(), "perceptron: `",
              name, "` must be a contiguous float32 vector, got ", bias.scalar_type(), " ", bias.sizes());
  return {bias.const_data_ptr<float>(), bias.size(0)};
}

// Stored derivatives of a hidden layer.
Tensor new_derivatives(const Tensor &x, int64_t columns, Precision precision, bool keep) {
  const auto dtype = precision == Precision::kBfloat16 ? at::kBFloat16 : at::kFloat;
  return at::empty({keep ? x.size(0) : 0, columns}, x.options().dtype(dtype));
}

Derivatives derivatives_of(const Tensor &stored, int64_t row, int64_t column) {
  if (stored.size(0) == 0) return {nullptr, false, 0};
  auto *data = static_cast<char *>(stored.data_ptr());
  const int64_t width = stored.size(1);
  return {data + (row * width + column) * stored.element_size(), stored.scalar_type() == at::kBFloat16,
          width};
}

// Calls evaluate(first row, rows, rows rounded up to what products take) for every block, on all threads.
// Rows of a block that do not exist are unspecified, and influence no other.
template <class Make, class Evaluate>
void for_blocks(int64_t n_rows, const Make &make, const Evaluate &evaluate) {
  const int64_t threads = at::get_num_threads();
  const int64_t block =
      std::clamp(rounded_up((n_rows + threads - 1) / threads, kSmallestBlock), kSmallestBlock, kBlock);
  const int64_t n_blocks = (n_rows + block - 1) / block;
  at::parallel_for(0, n_blocks, 1, [&](int64_t begin, int64_t end) {
    auto scratch = make();
    for (int64_t b = begin; b < end; ++b) {
      const int64_t first = b * block, rows = std::min(block, n_rows - first);
      evaluate(scratch, first, rows, rounded_up(rows, kSmallestBlock));
    }
    release_matrix_units();
  });
}

// The rows [first, first + rows) of a float32 matrix in the form that products read.
RowsIn rounded_rows(const Tensor &x, int64_t first, int64_t rows, int64_t padded, Precision precision,
                    Scratch &scratch) {
  const int64_t columns = x.size(1);
  const float *from = x.const_data_ptr<float>() + first * columns;
  if (precision == Precision::kFloat32 && rows == padded) return {from, nullptr, nullptr, columns};
  tile_kernels().round_rows(from, columns, rows, columns, scratch.out());
  return scratch.in();
}

void check_rows(const Tensor &x, const char *name) {
  TORCH_CHECK(x.dim() == 2 && x.scalar_type() == at::kFloat, "perceptron: `", name,
              "` must be a float32 matrix, got ", x.scalar_type(), " ", x.sizes());
}

Addend addend_of(const Optional &table, const Optional &index, int64_t n_rows, int64_t columns) {
  if (!table) return {};
  check_rows(*table, "rows");
  TORCH_CHECK(table->is_contiguous() && table->size(1) == columns && (index || table->size(0) == n_rows),
              "perceptron: `rows` must have shape (", index ? -1 : n_rows, ", ", columns, "), got ",
              table->sizes());
  if (!index) return {table->const_data_ptr<float>(), nullptr, columns};
  TORCH_CHECK(index->is_contiguous() && index->scalar_type() == at::kLong && index->numel() == n_rows,
              "perceptron: `index` must be ", n_rows, " int64, got ", index->scalar_type(), " ",
              index->sizes());
  return {table->const_data_ptr<float>(), index->const_data_ptr<int64_t>(), columns};
}

std::tuple<Tensor, Tensor, Tensor> perceptron(const Tensor &x_given, const Optional &first_rows,
                                              const Optional &first_index, const Optional &second_rows,
                                              const Optional &second_index, const Tensor &w1,
                                              const Tensor &b1, const Tensor &w2, const Tensor &b2,
                                              const Tensor &w3, const Tensor &b3, bool keep) {
  check_rows(x_given, "x");
  const Tensor x = x_given.contiguous();
  const int64_t n_rows = x.size(0), inputs = x.size(1);
  const Bias bias1 = bias_of(b1, "b1"), bias2 = bias_of(b2, "b2"), bias3 = bias_of(b3, "b3");
  const Packed first_layer(w1, inputs, bias1.size), second_layer(w2, bias1.size, bias2.size),
      third_layer(w3, bias2.size, bias3.size);
  const Precision precision = first_layer.precision();
  const Addend addends[] = {addend_of(first_rows, first_index, n_rows, bias1.size),
                            addend_of(second_rows, second_index, n_rows, bias1.size)};
  const Tensor out = at::empty({n_rows, bias3.size}, x.options());
  const Tensor d1 = new_derivatives(x, bias1.size, precision, keep),
               d2 = new_derivatives(x, bias2.size, precision, keep);
  float *result = out.mutable_data_ptr<float>();

  const auto make = [&] {
    return std::array<Scratch, 3>{Scratch(precision, inputs), Scratch(precision, bias1.size),
                                  Scratch(precision, bias2.size)};
  };
  for_blocks(n_rows, make, [&](auto &scratch, int64_t row, int64_t rows, int64_t padded) {
    alignas(64) float tile[kBlock * kTile], bias[kTile];
    const RowsIn in = rounded_rows(x, row, rows, padded, precision, scratch[0]);
    for (int64_t p = 0; p < first_layer.panels(); ++p) {
      const int64_t column = p * kTile, columns = std::min(kTile, bias1.size - column);
      first_layer.multiply(in, padded, p, tile);
      for (const Addend &addend : addends) add_rows(addend, row, rows, column, columns, tile);
      bias1.tile(column, bias);
      tile_kernels().activate(tile, rows, columns, bias, scratch[1].out(column),
                              derivatives_of(d1, row, column));
    }
    for (int64_t p = 0; p < second_layer.panels(); ++p) {
      const int64_t column = p * kTile, columns = std::min(kTile, bias2.size - column);
      second_layer.multiply(scratch[1].in(), padded, p, tile);
      bias2.tile(column, bias);
      tile_kernels().activate(tile, rows, columns, bias, scratch[2].out(column),
                              derivatives_of(d2, row, column));
    }
    for (int64_t p = 0; p < third_layer.panels(); ++p) {
      const int64_t column = p * kTile, columns = std::min(kTile, bias3.size - column);
      third_layer.multiply(scratch[2].in(), padded, p, tile);
      bias3.tile(column, bias);
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = 0; c < columns; ++c)
          result[(row + r) * bias3.size + column + c] = tile[r * kTile + c] + bias[c];
    }
  });
  return {out, d1, d2};
}

std::tuple<Tensor, Tensor> perceptron_vjp(const Tensor &g_given, const Tensor &d1_given,
                                          const Tensor &d2_given, const Tensor &w1t, const Tensor &w2t,
                                          const Tensor &w3t, int64_t inputs, bool with_first) {
  check_rows(g_given, "g");
  const Tensor g = g_given.contiguous(), d1 = d1_given.contiguous(), d2 = d2_given.contiguous();
  const int64_t n_rows = g.size(0), hidden1 = d1.size(1), hidden2 = d2.size(1);
  TORCH_CHECK(d1.size(0) == n_rows && d2.size(0) == n_rows, "perceptron_vjp: `d1` and `d2` must have ",
              n_rows, " rows, got ", d1.sizes(), " and ", d2.sizes());
  const Packed third_layer(w3t, g.size(1), hidden2), second_layer(w2t, hidden2, hidden1),
      first_layer(w1t, hidden1, inputs);
  const Precision precision = first_layer.precision();
  const Tensor g_x = at::empty({n_rows, inputs}, g.options());
  const Tensor g_first = at::empty({with_first ? n_rows : 0, hidden1}, g.options());
  float *to_x = g_x.mutable_data_ptr<float>(), *to_first = g_first.mutable_data_ptr<float>();

  const auto make = [&] {
    return std::array<Scratch, 3>{Scratch(precision, g.size(1)), Scratch(precision, hidden2),
                                  Scratch(precision, hidden1)};
  };
  for_blocks(n_rows, make, [&](auto &scratch, int64_t row, int64_t rows, int64_t padded) {
    alignas(64) float tile[kBlock * kTile];
    const RowsIn in = rounded_rows(g, row, rows, padded, precision, scratch[0]);
    for (int64_t p = 0; p < third_layer.panels(); ++p) {
      const int64_t column = p * kTile, columns = std::min(kTile, hidden2 - column);
      third_layer.multiply(in, padded, p, tile);
      tile_kernels().chain_rule(tile, rows, columns, scratch[1].out(column), derivatives_of(d2, row, column));
    }
    for (int64_t p = 0; p < second_layer.panels(); ++p) {
      const int64_t column = p * kTile, columns = std::min(kTile, hidden1 - column);
      second_layer.multiply(scratch[1].in(), padded, p, tile);
      tile_kernels().chain_rule(tile, rows, columns, scratch[2].out(column), derivatives_of(d1, row, column));
      if (with_first) copy_tile(tile, rows, columns, to_first + row * hidden1 + column, hidden1);
    }
    for (int64_t p = 0; p < first_layer.panels(); ++p) {
      const int64_t column = p * kTile, columns = std::min(kTile, inputs - column);
      first_layer.multiply(scratch[2].in(), padded, p, tile);
      copy_tile(tile, rows, columns, to_x + row * inputs + column, inputs);
    }
  });
  return {g_x, g_first};
}

}    // namespace

TORCH_LIBRARY_FRAGMENT(orb_export, m) {
  // -> (R, C), and with `keep` the derivatives of both activations, (R, H) each, else (0, H)
  m.def(
      "perceptron(Tensor x, Tensor? first_rows, Tensor? first_index, Tensor? second_rows,"
      " Tensor? second_index, Tensor w1, Tensor b1, Tensor w2, Tensor b2, Tensor w3, Tensor b3, bool keep)"
      " -> (Tensor, Tensor, Tensor)");
  // -> gradients of x (R, inputs), and with `with_first` of what is added to the first layer (R, H)
  m.def(
      "perceptron_vjp(Tensor g, Tensor d1, Tensor d2, Tensor w1t, Tensor w2t, Tensor w3t, int inputs,"
      " bool with_first) -> (Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(orb_export, CPU, m) {
  m.impl("perceptron", perceptron);
  m.impl("perceptron_vjp", perceptron_vjp);
}

}    // namespace orb_export
