from .api import TileConfig as TileConfig
from .api import TiledRun as TiledRun
from .api import detect_file_in_tiles as detect_file_in_tiles
from .api import fit_memory as fit_memory
from .api import memory_needed as memory_needed
from .executors import Tasks as Tasks
from .executors import tasks_on as tasks_on
