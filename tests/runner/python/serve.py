"""Serves DIRECTORY on loopback, on a port that the system chooses; reports it as JSON."""

import functools
import http.server
import json
import sys

handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=sys.argv[1])
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
print(json.dumps({"address": f"http://127.0.0.1:{server.server_port}/"}), flush=True)
server.serve_forever()
