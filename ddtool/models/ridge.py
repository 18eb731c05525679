"""Ridge regression in closed form: the best linear head on features."""

import torch
from torch import Tensor


def ridge_head(F: Tensor, Y: Tensor, ridge: float) -> Tensor:
    """W (d, C) that minimises ‖F W − Y‖² + c‖W‖², F (m, d), Y (m, C), with c = λ·tr(F Fᵀ)/min(m, d).

    c is λ times the mean non-zero eigenvalue, so λ does not depend on the scale of the features. Solved by Cholesky in
    the smaller of the kernel form Fᵀ (F Fᵀ + cI)⁻¹ Y and the feature form (Fᵀ F + cI)⁻¹ Fᵀ Y: the same solution.
    """
    m, d = F.shape
    if m <= d:
        return F.T @ solve_regularised(F @ F.T, Y, ridge, m)
    return solve_regularised(F.T @ F, F.T @ Y, ridge, d)


def solve_regularised(A: Tensor, B: Tensor, ridge: float, rank: int) -> Tensor:
    """(A + λ·tr(A)/rank·I)⁻¹ B for a symmetric positive semi-definite A. Where A + cI is numerically indefinite, the
    result is not finite, which the loop reports; nothing is asked of the host."""
    diagonal = A.diagonal()
    shifted = torch.diagonal_scatter(A, diagonal + ridge * diagonal.sum() / rank)
    L, info = torch.linalg.cholesky_ex(shifted)
    return torch.cholesky_solve(B, L) + torch.where(info > 0, float("nan"), 0.0)
