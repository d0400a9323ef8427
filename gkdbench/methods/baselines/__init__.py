"""What distillation is compared with: models trained alone, plain KD, regularised and matched controls, ensembles."""
