import os
from pathlib import Path

from flask import Flask, request

app = Flask(__name__)
BASE = Path(__file__).parent


@app.post("/media/upload")
def add():
    file = request.files["upload"]
    file.save(os.path.join("uploads", file.filename))  # noqa: PTH118
    file.save(BASE / "user_uploads" / file.filename)
    Path("media").mkdir(exist_ok=True)
    with open("static/attachments/last.txt", "w") as last:  # noqa: PTH123
        last.write(file.filename)
    return "", 201
