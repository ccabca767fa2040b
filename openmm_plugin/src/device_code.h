// Device code in the dialect that OpenMM turns into OpenCL, HIP and CUDA; compiled when a Context is created.
#pragma once

namespace orb_export::openmm {

// A particle is kept in a slot of OpenMM's arrays. Other kernels may add forces at the same time, hence the
// atomics. With SHARED the potential keeps its positions and forces on the same device: (n, 3) float64 each
// in its own units, at addresses that are passed as numbers, for they are none of OpenMM's arrays.
inline constexpr const char *kDeviceCode = R"(
KERNEL void orbv3GatherPositions(GLOBAL const real4* RESTRICT posq,
#ifdef HAS_CORRECTION
                                 GLOBAL const real4* RESTRICT correction,
#endif
                                 GLOBAL const int* RESTRICT slots,
#ifdef SHARED
                                 mm_ulong address) {
    GLOBAL POSITION* RESTRICT positions = (GLOBAL POSITION*) address;
#else
                                 GLOBAL POSITION* RESTRICT positions) {
#endif
    for (int k = GLOBAL_ID; k < NUM_PARTICLES; k += GLOBAL_SIZE) {
        const int slot = slots[k];
        const real4 high = posq[slot];
        POSITION x = high.x, y = high.y, z = high.z;
#ifdef HAS_CORRECTION
        const real4 low = correction[slot];
        x += low.x;
        y += low.y;
        z += low.z;
#endif
        positions[3*k] = LENGTH_UNIT*x;
        positions[3*k+1] = LENGTH_UNIT*y;
        positions[3*k+2] = LENGTH_UNIT*z;
    }
}

#ifdef SHARED
KERNEL void orbv3AddForces(mm_ulong address, double unit, GLOBAL const int* RESTRICT slots,
                           GLOBAL mm_ulong* RESTRICT forceBuffers) {
    GLOBAL const double* RESTRICT forces = (GLOBAL const double*) address;
#define FIXED_POINT(force) ((mm_ulong) (mm_long) (unit*(force)))
#else
KERNEL void orbv3AddForces(GLOBAL const mm_long* RESTRICT forces, GLOBAL const int* RESTRICT slots,
                           GLOBAL mm_ulong* RESTRICT forceBuffers) {
#define FIXED_POINT(force) ((mm_ulong) (force))
#endif
    for (int k = GLOBAL_ID; k < NUM_PARTICLES; k += GLOBAL_SIZE) {
        const int slot = slots[k];
        ATOMIC_ADD(&forceBuffers[slot], FIXED_POINT(forces[3*k]));
        ATOMIC_ADD(&forceBuffers[slot+PADDED_NUM_ATOMS], FIXED_POINT(forces[3*k+1]));
        ATOMIC_ADD(&forceBuffers[slot+2*PADDED_NUM_ATOMS], FIXED_POINT(forces[3*k+2]));
    }
}
)";

}    // namespace orb_export::openmm
