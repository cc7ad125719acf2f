"""The program that gunicorn runs: `gunicorn app:app`."""

import os

from api import create_app

app = create_app(os.environ)
