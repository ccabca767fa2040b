// From the raw outputs of a compiled program to energy, forces and stress. No torch.
#pragma once

#include <array>

#include "backend.h"

namespace orb_export {

// Throws std::runtime_error when an output is not finite.
// Leaves empty what `request` does not ask for.
Result assemble(const Graph &graph, const Metadata &metadata, const Request &request, const RawOutputs &raw);

// Removes from `forces` (n, 3) their torque about the unweighted centroid of `positions` (n, 3), by adding
// r x mu where M mu = -torque and M = sum r r^T - (sum r^2) 1; directions without inertia are left alone.
void remove_torque(const double *positions, int64_t n, double *forces);

// Eigenvalues and eigenvectors (columns of `vectors`) of a symmetric 3x3 matrix, by Jacobi rotations.
void symmetric_eigen(std::array<double, 9> matrix, std::array<double, 3> &values,
                     std::array<double, 9> &vectors);

double determinant(const std::array<double, 9> &cell);

}    // namespace orb_export
