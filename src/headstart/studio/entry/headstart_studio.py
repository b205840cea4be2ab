"""What `streamlit run` executes for every visit: the place comes as the only argument."""

import sys
from pathlib import Path

from headstart.studio.page import show

show(Path(sys.argv[1]))
