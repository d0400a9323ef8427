"""Kernel benchmark: operators x shapes x backends x competitors, each ratio after a check of values and gradients."""
