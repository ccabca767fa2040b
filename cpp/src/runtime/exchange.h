// What processes that share one system do between the steps of the chain. Rows are atoms, own ones first,
// then copies of atoms that other processes own.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace orb_export {

class RowExchange {
 public:
  virtual ~RowExchange() = default;
  // Copies rows of own atoms to their copies elsewhere, in place.
  virtual void forward(at::Tensor &rows) = 0;
  // The transpose: adds the rows of copies to those of their atoms.
  virtual void reverse_add(at::Tensor &rows) = 0;
  // Sums over processes, in place.
  virtual void sum(double *values, int64_t count) = 0;
};

// One process: there are no copies.
class NoExchange : public RowExchange {
 public:
  void forward(at::Tensor &) override {}
  void reverse_add(at::Tensor &) override {}
  void sum(double *, int64_t) override {}
};

}    // namespace orb_export
