"""The process of the page: Streamlit's server, with what it will need loading beside it.

Loading torch takes longer than opening a browser, so it begins before the first visit.
"""

from __future__ import annotations

import sys
import threading
from typing import NoReturn


def load_ahead() -> None:
    """Import what every area needs; whoever comes meanwhile waits for the rest only."""
    from headstart.studio.areas import data, predict, runs  # noqa: F401


def main() -> NoReturn:
    """Serve the page with the options of `streamlit run`."""
    from streamlit.web.cli import main as streamlit

    threading.Thread(target=load_ahead, name="load-ahead", daemon=True).start()
    sys.argv = ["streamlit", "run", *sys.argv[1:]]
    sys.exit(streamlit(prog_name="headstart studio"))


if __name__ == "__main__":
    main()
