"""dvt: dense features of pretrained vision transformers, and their denoising. Tensors in, tensors out.

Method: Denoising Vision Transformers, Yang et al., ECCV 2024, arXiv 2401.02957; stage 1 is solved directly (``lstsq``).
"""

from .aliases import ALIASES, backbone_id, resolve
from .backbone import Backbone
from .comparison import Measured, Setting, compare
from .decomposition import Decomposition
from .encoding import GridOptions
from .errors import BackboneError, DvtError, HubError, SolverError, WeightsError
from .field import FieldOptions
from .field_fit import FieldFit, fit_field
from .lstsq import LstsqOptions, solve, solve_groups
from .nodes import LstsqFit, node_grid
from .raw import RawDecomposer, as_map
from .stage1 import Stage1Decomposer
from .views import Crop, ViewGroup, ViewOptions, patch_centres, sample_crops
from .weights import demo_weights_path, read_weights

__all__ = [
    "ALIASES",
    "Backbone",
    "BackboneError",
    "Crop",
    "Decomposition",
    "DvtError",
    "FieldFit",
    "FieldOptions",
    "GridOptions",
    "HubError",
    "LstsqFit",
    "LstsqOptions",
    "Measured",
    "RawDecomposer",
    "Setting",
    "SolverError",
    "Stage1Decomposer",
    "ViewGroup",
    "ViewOptions",
    "WeightsError",
    "as_map",
    "backbone_id",
    "compare",
    "demo_weights_path",
    "fit_field",
    "node_grid",
    "patch_centres",
    "read_weights",
    "resolve",
    "sample_crops",
    "solve",
    "solve_groups",
]
