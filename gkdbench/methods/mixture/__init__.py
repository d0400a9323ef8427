"""Students that are mixtures of experts: routing by memory (RbM) and learned routers (MoE)."""
