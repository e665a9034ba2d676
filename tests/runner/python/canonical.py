"""Reads one JSON document a line; writes, a line each, securesystemslib's canonical form of it in hex."""

import json
import sys

from securesystemslib.formats import encode_canonical

for line in open(sys.argv[1], encoding="utf-8", newline="\n"):
    print(encode_canonical(json.loads(line)).encode("utf-8").hex())
