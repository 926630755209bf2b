"""CRF-RNN: FullCRF whose weights, by class, and compatibility are learnt (Zheng et al., arXiv:1502.03240).

Energy of labels x, in the notation of docs/systems/crfrnn.md::

    E(x) = Σ_i −log p_i(x_i) / temperature + Σ_{i<j} μ(x_i, x_j) (w₁ k_appearance + w₂ k_smoothness)

The settings say what of it is learnt: the parts are those of `gaussian_crf`, one iteration of mean field after another
as in section 5.1 of the paper.
"""

from pipeline.algorithms import refiners
from pipeline.systems.fullcrf import FullCRF


class System(refiners.GradientSystem):
    """A CRF-RNN that fits itself by gradient and refines one image at a time."""

    model = FullCRF
