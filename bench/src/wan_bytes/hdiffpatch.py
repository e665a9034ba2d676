"""HDiffPatch over two files: `diff OLD NEW DELTA` or `apply OLD DELTA NEW`."""

import sys

import hdiffpatch

verb, first, second, out = sys.argv[1:]
with open(first, "rb") as file:
    first = file.read()
with open(second, "rb") as file:
    second = file.read()
if verb == "diff":
    # The window covers both files, so that the compressor is not what limits it.
    window = min(30, max(20, (len(first) + len(second)).bit_length()))
    lzma2 = hdiffpatch.Lzma2Config(level=9, window=window, threads=1)
    # Applied and compared by the bench, in a process of its own.
    result = hdiffpatch.diff(first, second, compression=lzma2, validate=False)
else:
    result = hdiffpatch.apply(first, second)
with open(out, "wb") as file:
    file.write(result)
