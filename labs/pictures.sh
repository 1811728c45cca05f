#!/usr/bin/env bash
# Draw docs/*.dot. The picture's first line holds the digest of its source, so that a test without
# graphviz sees whether it was drawn again after the last change.
set -euo pipefail
cd "$(dirname "$0")/../docs"
for source in *.dot; do
    picture=${source%.dot}.svg
    {
        printf '<!-- %s, sha256 %s: make pictures -->\n' "$source" "$(sha256sum <"$source" | cut -d ' ' -f 1)"
        dot -Tsvg "$source" | sed '/^<?xml/d; /^<!DOCTYPE/,/>$/d; /^<!-- Generated/,/-->$/d'
    } >"$picture.new"
    mv "$picture.new" "$picture"
    printf 'docs/%s\n' "$picture"
done
