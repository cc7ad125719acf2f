from flask import Flask

app = Flask(__name__)


@app.route("/items")
def items() -> list[str]:
    return []


@app.route("/users/<name>")
def user(name: str) -> str:
    return name
