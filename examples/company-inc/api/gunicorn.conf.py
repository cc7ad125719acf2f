"""How gunicorn runs the API; it reads this file by itself from the folder it starts in.

The address comes from outside (`--bind`, or GUNICORN_CMD_ARGS, which Lapwing sets).
"""

worker_class = "gthread"
workers = 1  # Lapwing runs as many replicas as the stack file says
threads = 32  # a live view holds a thread for as long as it is open
# Longer than any proxy keeps an idle connection, so that it is never this end that closes one just
# as a request is on its way.
keepalive = 120
# On SIGTERM: listen no more, answer what has begun, then end; within the 10 s that Lapwing waits
# for a replica (stop_grace).
graceful_timeout = 9
# Replicas of one machine would share one path.
control_socket_disable = True


def post_worker_init(worker):  # type: ignore[no-untyped-def]
    """Tell the live view how many threads it may use, and when the worker stops."""
    live = worker.wsgi.extensions["live"]
    live.limit = worker.cfg.threads * 3 // 4
    live.closing = lambda: not worker.alive
