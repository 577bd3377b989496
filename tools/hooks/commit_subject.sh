#!/bin/sh
# Checks a commit message: the subject's length and the blank line after it. Called by the commit-msg hook with the file.
# Must not change the message.
set -eu

LIMIT=72 # a subject that is longer is cut by `git log --oneline` and by review tools
file=$1

# Comments are git's own; what comes after the scissors line is the diff of `git commit --verbose`.
message=$(sed -e '/^# -* >8 -*$/,$d' -e '/^#/d' "$file")
subject=$(printf '%s\n' "$message" | sed -n '1p')
second=$(printf '%s\n' "$message" | sed -n '2p')

case $subject in
"Merge "* | "Revert "* | "fixup! "* | "squash! "*) exit 0 ;;
esac
# Characters, not bytes: the locale of a hook may be C.
length=$(printf '%s' "$subject" | LC_ALL=C tr -d '\200-\277' | LC_ALL=C wc -c)
if [ "$length" -eq 0 ]; then
    echo "The commit has no subject: say in the first line what changes." >&2
    exit 1
fi
if [ "$length" -gt "$LIMIT" ]; then
    echo "The subject has $length characters, $LIMIT are allowed: shorten it and put the rest into the body." >&2
    exit 1
fi
if [ -n "$second" ]; then
    echo "The second line must be blank: it separates the subject from the body." >&2
    exit 1
fi
