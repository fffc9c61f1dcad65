"""Plain ways to compute what the package computes cleverly."""

import numpy as np


def fourteen(matrices, biases):
    """The table of Hu et al. for one run, written down as it stands."""
    w = np.concatenate([m.ravel() for m in matrices]).astype(np.float64)
    per_matrix = []
    for m in (m.astype(np.float64) for m in matrices):
        s = np.linalg.svd(m, compute_uv=False)
        s[s < 1e-5] = 0
        trace = sum(m[i, i] for i in range(min(m.shape)))
        l1, l2 = np.abs(m).sum(), np.sqrt((m**2).sum())
        per_matrix.append([l1, l2, l1 / l2, trace, s.max(), trace / s.max(), s.mean(), s.var()])
    keys = ["l1", "l2", "l1_over_l2", "trace", "lambda_max", "trace_over_lambda_max", "mean_sv", "var_sv"]
    result = dict(zip(keys, np.mean(per_matrix, axis=0), strict=True))
    pooled = {"w": w, **({"b": np.concatenate(biases).astype(np.float64)} if biases else {})}
    for key, values in pooled.items():
        result |= {
            f"mean_{key}": values.mean(),
            f"median_{key}": np.sort(values)[(len(values) - 1) // 2],
            f"var_{key}": values.var(),
        }
    return result
