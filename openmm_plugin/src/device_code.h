// Device code in the dialect that OpenMM turns into OpenCL, HIP and CUDA; compiled when a Context is created.
#pragma once

namespace orb_export::openmm {

// A particle is kept in a slot of OpenMM's arrays. Other kernels may add forces at the same time, hence the
// atomics.
inline constexpr const char *kDeviceCode = R"(
KERNEL void orbv3GatherPositions(GLOBAL const real4* RESTRICT posq,
#ifdef HAS_CORRECTION
                                 GLOBAL const real4* RESTRICT correction,
#endif
                                 GLOBAL const int* RESTRICT slots, GLOBAL POSITION* RESTRICT positions) {
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
        positions[3*k] = x;
        positions[3*k+1] = y;
        positions[3*k+2] = z;
    }
}

KERNEL void orbv3AddForces(GLOBAL const mm_long* RESTRICT forces, GLOBAL const int* RESTRICT slots,
                           GLOBAL mm_ulong* RESTRICT forceBuffers) {
    for (int k = GLOBAL_ID; k < NUM_PARTICLES; k += GLOBAL_SIZE) {
        const int slot = slots[k];
        ATOMIC_ADD(&forceBuffers[slot], (mm_ulong) forces[3*k]);
        ATOMIC_ADD(&forceBuffers[slot+PADDED_NUM_ATOMS], (mm_ulong) forces[3*k+1]);
        ATOMIC_ADD(&forceBuffers[slot+2*PADDED_NUM_ATOMS], (mm_ulong) forces[3*k+2]);
    }
}
)";

}    // namespace orb_export::openmm
