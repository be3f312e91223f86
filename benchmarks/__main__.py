"""Which benchmark to run: `ingest`, `runs`, `steps`, `overload`, `stored`, `peers`; without a name all but `stored` and
`steps`, which take minutes."""

from __future__ import annotations

import signal
import sys

from benchmarks import ingest, overload, peers, runs, steps, stored

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    peer_python, *words = sys.argv[1:]
    count = [int(words.pop())] if words and words[-1].isdigit() else []
    for name in words or ["ingest", "runs", "overload", "peers"]:
        if name == "peers":
            peers.main(peer_python)
        else:
            {"ingest": ingest, "runs": runs, "steps": steps, "overload": overload, "stored": stored}[name].main(*count)
