"""Programs of images: they answer with what they observe, and end with status 0 after SIGTERM."""

from __future__ import annotations

PYTHON_APP = """\
import http.server, os, signal, sys
from markupsafe import escape

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        facts = [str(os.getuid()), os.environ["HOME"], escape("<"), str(os.getpid())]
        self.wfile.write(" ".join(facts).encode())

def stop(*_):
    print("stopped", flush=True)
    sys.exit(0)

signal.signal(signal.SIGTERM, stop)
for folder in ("/app", "/opt/venv", "/"):
    try:
        open(folder + "/written", "w")
    except OSError:
        continue
    sys.exit(f"{folder} is writable")
open("/tmp/written", "w")
http.server.HTTPServer(("0.0.0.0", int(os.environ["PORT"])), Handler).serve_forever()
"""
NODE_APP = """\
const server = require("http").createServer((q, r) => r.end(`${process.getuid()} ${process.pid}`));
server.listen(process.env.PORT);
process.on("SIGTERM", () => { console.log("stopped"); server.close(() => process.exit(0)); });
"""
