"""The Celery app, its one thin task, and how a worker starts and stops.

State lives in the ledger alone: a message names a queue and, as a hint, one work id. A message lost or
delivered twice changes nothing but time, so results, retries, countdowns and canvas are off
(``reliability.md`` §4).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from celery import Celery, signals
from kombu import Queue
from kombu.exceptions import KombuError

from pacs_ai.errors import TransientError
from pacs_ai.gateway import Gateway
from pacs_ai.settings import Settings
from worker.bell import Bell
from worker.broker import private_broker

log = logging.getLogger(__name__)

TASK = "pacs_ai.carry_out"


class Face:
    """The worker's side of the gateway: the gateway of this process, made after the fork.

    Parameters
    ----------
    settings : Settings
    broker_url : str
    """

    def __init__(self, settings: Settings, broker_url: str) -> None:
        self._settings = settings
        self._gateway: Gateway | None = None
        self._queues = frozenset(Gateway.queue_names(settings))
        self.app = make_app(broker_url, settings)
        self.app.task(name=TASK)(self.carry_out)

    def gateway(self) -> Gateway:
        """Return this process's gateway."""
        if self._gateway is None:
            self._gateway = Gateway(self._settings)
        return self._gateway

    def carry_out(self, queue: str, work_id: str) -> None:
        """Carry out the best ready work of a queue, then ring for what is ready now."""
        gateway = self.gateway()
        try:
            if gateway.carry_out(queue):
                for ready, hint in dict(gateway.ledger.due()).items():
                    self.ring(ready, hint)
        except (TransientError, KombuError) as error:
            log.warning("not now; the bell rings again", extra={"error": type(error).__name__})

    def ring(self, queue: str, work_id: str) -> None:
        """Send one message: there is work in a queue. Of one that no worker has there is nobody to tell."""
        if queue not in self._queues:
            return
        self.app.send_task(TASK, args=(queue, work_id), queue=queue)


def make_app(broker_url: str, settings: Settings) -> Celery:
    """Return a Celery app with the settings that matter, each for the reason ``docs/`` gives."""
    app = Celery("pacs-ai", broker=broker_url, set_as_current=False)
    limit = max(
        (endpoint.timeout.total_seconds() for endpoint in settings.endpoints.values()), default=0.0
    )
    hard = max(900.0, 2 * limit)
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=False,
        task_publish_retry=False,
        task_time_limit=hard,
        task_soft_time_limit=hard - 60,
        task_create_missing_queues=False,
        task_queues=[Queue(name) for name in Gateway.queue_names(settings)],
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_max_tasks_per_child=100,
        worker_max_memory_per_child=1_500_000,
        worker_soft_shutdown_timeout=25.0,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "visibility_timeout": max(3600, int(2 * hard)),
            "unacked_restore_interval": 10,
            "unacked_restore_throttle": 1,
            "socket_timeout": 30,
            "socket_connect_timeout": 5,
            "socket_keepalive": not broker_url.startswith("redis+socket"),
            "health_check_interval": 25,
        },
    )
    return app


def run(settings: Settings, *, ready: Callable[[], None]) -> None:
    """Carry out work until SIGTERM; ``ready`` is called when the worker takes messages."""
    with ExitStack() as stack:
        broker_url = settings.broker or stack.enter_context(
            private_broker(settings.data / "broker")
        )
        face = Face(settings, broker_url)
        bell = Bell(settings, face.ring, queues=Gateway.queue_names(settings))

        def _on_ready(**_: Any) -> None:
            threading.Thread(target=bell.run, name="bell", daemon=True).start()
            ready()

        signals.worker_ready.connect(_on_ready, weak=False)
        stack.callback(bell.stop)
        face.app.Worker(
            pool_cls="prefork",
            concurrency=settings.worker_concurrency,
            queues=",".join(Gateway.queue_names(settings)),
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
            quiet=True,
            loglevel="WARNING",
        ).start()
