#!/usr/bin/env python3
"""Is stdin exactly one JSON object with these fields?

usage: json_fields.py 'a b=1 list[] list[x,y] object{} object{x,y}'
"""
import json
import re
import sys


def main():
    o = json.loads(sys.stdin.buffer.read().decode("utf-8"))
    if not isinstance(o, dict):
        sys.exit("not an object")
    for field in sys.argv[1].split():
        name, value, kind, inner = re.fullmatch(r"(\w+)(?:=(\w+))?(?:([\[{])([\w,]*)[\]}])?", field).groups()
        if name not in o:
            sys.exit(f"no {name}")
        v = o[name]
        if value is not None and json.dumps(v).strip('"') != value:
            sys.exit(f"{name} is {v!r}, not {value}")
        if kind and not isinstance(v, list if kind == "[" else dict):
            sys.exit(f"{name} is {type(v).__name__}")
        for item in (v if kind == "[" else [v]) if inner else []:
            for key in inner.split(","):
                if key not in item:
                    sys.exit(f"{name} lacks {key}")
        if inner and kind == "[" and not v:
            sys.exit(f"{name} is empty")


if __name__ == "__main__":
    main()
