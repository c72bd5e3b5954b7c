"""dvt: dense features of pretrained vision transformers, and their denoising. Tensors in, tensors out.

Method: Denoising Vision Transformers, Yang et al., ECCV 2024, arXiv 2401.02957; stage 1 is solved directly (``lstsq``).
"""

from .aliases import ALIASES, backbone_id, resolve
from .backbone import Backbone, choose_device
from .buckets import Buckets, resampled
from .catalogue import BackboneFacts, describe_backbone, find_backbones
from .comparison import Measured, Setting, compare
from .confusion import bootstrap, count_pairs
from .decomposition import Decomposition
from .denoiser import Denoiser
from .denoiser_file import read_state
from .depth_losses import gradient_loss, scale_invariant_loss
from .diagnosis import Diagnosis, LayerDiagnosis, diagnose, diagnose_maps, spread_blocks
from .encoding import GridOptions
from .errors import BackboneError, DenoiserError, DvtError, HubError, SolverError, WeightsError
from .field import FieldOptions
from .field_fit import FieldFit, fit_field
from .framing import RESIZES, centred, inputs_near, nearest_input
from .heads import ClassHead, DepthHead, HeadOptions, train_head
from .intervals import Interval, Jackknifed, Sums
from .judging import Figure, MethodResult, Patches, judge, run_method
from .layers import Layers, at_layers
from .lost import K_PATCHES, Discovery, connected, find_object
from .lstsq import LstsqOptions, solve, solve_groups
from .mic import maximal_information
from .nodes import LstsqFit, node_grid
from .outliers import OutlierRule, Place, Spread, frequent_places, log_edges, spread_of
from .position import MIC_PAIRS, JackknifeShare, PositionShare, chance_mic, position_mic, position_mics, position_share
from .position_mean import PositionMeanDecomposer
from .probe import knn_labels, patch_labels, ridge_labels
from .rasa import RasaDecomposer, RasaOptions, fit_rasa
from .raw import RawDecomposer, as_map, as_maps, raw_of
from .registers import RegisterOptions, RegistersDecomposer, find_neurons
from .scores import DEPTH_METRICS, EIGEN_CROP, box_iou, corloc, depth_scores, over_seeds, segmentation_scores
from .shifted import ShiftMeanDecomposer, ShiftOptions
from .stage1 import Stage1Decomposer
from .stage2 import Stage2Decomposer, StoredDecomposer, check_lineage, cleaned, position_mean
from .tiled import crops_anywhere, mean_anywhere
from .training import Progress, Trainer, TrainOptions
from .validation import Validation, validate
from .views import Crop, ViewGroup, ViewOptions, patch_centres, sample_crops
from .weights import demo_weights_path, read_weights

__all__ = [
    "ALIASES",
    "DEPTH_METRICS",
    "EIGEN_CROP",
    "K_PATCHES",
    "MIC_PAIRS",
    "RESIZES",
    "Backbone",
    "BackboneError",
    "BackboneFacts",
    "Buckets",
    "ClassHead",
    "Crop",
    "Decomposition",
    "Denoiser",
    "DenoiserError",
    "DepthHead",
    "Diagnosis",
    "Discovery",
    "DvtError",
    "FieldFit",
    "FieldOptions",
    "Figure",
    "GridOptions",
    "HeadOptions",
    "HubError",
    "Interval",
    "JackknifeShare",
    "Jackknifed",
    "LayerDiagnosis",
    "Layers",
    "LstsqFit",
    "LstsqOptions",
    "Measured",
    "MethodResult",
    "OutlierRule",
    "Patches",
    "Place",
    "PositionMeanDecomposer",
    "PositionShare",
    "Progress",
    "RasaDecomposer",
    "RasaOptions",
    "RawDecomposer",
    "RegisterOptions",
    "RegistersDecomposer",
    "Setting",
    "ShiftMeanDecomposer",
    "ShiftOptions",
    "SolverError",
    "Spread",
    "Stage1Decomposer",
    "Stage2Decomposer",
    "StoredDecomposer",
    "Sums",
    "TrainOptions",
    "Trainer",
    "Validation",
    "ViewGroup",
    "ViewOptions",
    "WeightsError",
    "as_map",
    "as_maps",
    "at_layers",
    "backbone_id",
    "bootstrap",
    "box_iou",
    "centred",
    "chance_mic",
    "check_lineage",
    "choose_device",
    "cleaned",
    "compare",
    "connected",
    "corloc",
    "count_pairs",
    "crops_anywhere",
    "demo_weights_path",
    "depth_scores",
    "describe_backbone",
    "diagnose",
    "diagnose_maps",
    "find_backbones",
    "find_neurons",
    "find_object",
    "fit_field",
    "fit_rasa",
    "frequent_places",
    "gradient_loss",
    "inputs_near",
    "judge",
    "knn_labels",
    "log_edges",
    "maximal_information",
    "mean_anywhere",
    "nearest_input",
    "node_grid",
    "over_seeds",
    "patch_centres",
    "patch_labels",
    "position_mean",
    "position_mic",
    "position_mics",
    "position_share",
    "raw_of",
    "read_state",
    "read_weights",
    "resampled",
    "resolve",
    "ridge_labels",
    "run_method",
    "sample_crops",
    "scale_invariant_loss",
    "segmentation_scores",
    "solve",
    "solve_groups",
    "spread_blocks",
    "spread_of",
    "train_head",
    "validate",
]
