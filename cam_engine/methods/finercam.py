from __future__ import annotations

from torch import Tensor

from cam_engine.methods.registry import register


@register("finercam", needs=("finer_gradients",))
def finercam(activations: Tensor, finer_gradients: Tensor) -> Tensor:
    """Finer-CAM: Grad-CAM of what sets the class apart from the classes most like it.

    w_k = mean_ij ∂s/∂A^k_ij, s = Σ_d p_d (y_c − y_d) / Σ_d p_d over the three classes d whose scores lie closest to that of
    c, p their probabilities. Zhang et al. 2025, arXiv:2501.11309, eq. 5, α = 1. p_d / Σ p_d is a softmax over the three alone, so
    that a confident model's vanishing probabilities need no eps.
    """
    return finer_gradients.mean((2, 3))
