"""``python -m examples.database_service``: the API on port 8000, and workers beside it that are started again."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from dataclasses import replace
from threading import Event, Thread

import uvicorn

from .api import create_app
from .service import Service
from .settings import Settings


def main() -> None:
    parser = argparse.ArgumentParser(prog="database_service", description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--crash", type=float, help="how likely a worker dies in each call of the hypervisor")
    arguments = parser.parse_args()
    settings = Settings.from_environment()
    if arguments.crash is not None:
        settings = replace(settings, crash=arguments.crash)
    Service.install(settings)
    stop = Event()
    keepers = [Thread(target=_keep_alive, args=(settings, stop)) for _ in range(arguments.workers)]
    for keeper in keepers:
        keeper.start()
    print(f"http://127.0.0.1:{arguments.port}/docs shows what there is; Ctrl-C ends it")
    try:
        uvicorn.run(create_app(Service.open(settings)), port=arguments.port, log_level="warning")
    finally:
        stop.set()
        for keeper in keepers:
            keeper.join()


def _keep_alive(settings: Settings, stop: Event) -> None:
    """A worker, and another one when it has died. Nothing else is to be done about a dead worker."""
    command = [sys.executable, "-m", "examples.database_service.worker"]
    while not stop.is_set():
        worker = subprocess.Popen(command, env={**os.environ, **settings.as_environment()})  # noqa: S603
        while worker.poll() is None and not stop.wait(0.2):
            pass
        if stop.is_set():
            worker.terminate()
            worker.wait()
        else:
            print(f"worker {worker.pid} died ({worker.returncode}); here is another one", file=sys.stderr)


if __name__ == "__main__":
    main()
