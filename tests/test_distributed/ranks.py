"""``python ranks.py RANK PORT FOLDER``: one of two processes that run all cases."""

import sys
from pathlib import Path

if __name__ == '__main__':
    sys.path[:0] = [
        str(Path(__file__).resolve().parents[1]),
        str(Path(__file__).resolve().parents[2]),
    ]
    from test_distributed.cases import main

    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
