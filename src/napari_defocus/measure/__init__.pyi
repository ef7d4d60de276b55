from .polygons import MaskRegion as MaskRegion
from .polygons import mask_features as mask_features
from .polygons import trace_regions as trace_regions
from .regions import focus_scores as focus_scores
from .regions import region_shares as region_shares
from .regions import score_objects as score_objects
from .tables import object_rows as object_rows
from .tables import share_row as share_row
