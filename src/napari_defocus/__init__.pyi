from .core.errors import DefocusError as DefocusError
from .detection.api import detect as detect
from .detection.config import DetectionConfig as DetectionConfig
from .detection.postprocess import Detection as Detection
from .metric.fitting import FitConfig as FitConfig
from .metric.fitting import fit_metric as fit_metric
from .metric.fitting import instant_metric as instant_metric
from .metric.fitting import metric_from_nets as metric_from_nets
from .metric.local_metric import LocalMetric as LocalMetric
from .metric.local_metric import load_metric as load_metric
from .metric.local_metric import save_metric as save_metric
from .metric.nets import TrainingConfig as TrainingConfig
from .metric.patches import PatchConfig as PatchConfig
from .metric.patches import PatchSet as PatchSet
from .metric.patches import build_patch_set as build_patch_set
from .metric.training import train as train

__version__: str
