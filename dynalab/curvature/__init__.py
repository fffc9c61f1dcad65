"""Curvature of the loss: Hessian-vector products, eigenvalues, spectral densities, and thresholds of stability."""
