"""The bench of the kernels: operators x shapes x backends x peers, each ratio behind a gate of values and gradients."""
