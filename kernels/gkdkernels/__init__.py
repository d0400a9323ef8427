"""gkdkernels: fused operators for graph distillation."""
