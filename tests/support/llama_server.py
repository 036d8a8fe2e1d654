"""Start the server of llama.cpp from the package xllamacpp.

python -m tests.support.llama_server FILE.gguf PORT [CONTEXT [SLOTS [THREADS]]]
"""

from __future__ import annotations

import signal
import sys


def main(file: str, port: str, context: str = "16384", slots: str = "4", threads: str = "1") -> None:
    import xllamacpp

    settings = xllamacpp.CommonParams()
    settings.model.path, settings.hostnames, settings.port = file, ["127.0.0.1"], int(port)
    settings.n_ctx, settings.n_parallel = int(context), int(slots)
    # one thread is faster than two as soon as anything else runs on the machine
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = int(threads)
    server = xllamacpp.Server(settings)
    print(server.listening_address, flush=True)
    signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:])
