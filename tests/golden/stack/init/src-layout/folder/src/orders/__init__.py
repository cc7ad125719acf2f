from flask import Flask


def create_app() -> Flask:
    app = Flask(__name__)
    app.add_url_rule("/healthz", view_func=lambda: "ok")
    return app
