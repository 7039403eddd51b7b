#!/bin/sh
# page.sh NAME VERSION WHAT COMMAND...: a manual page on standard output, of what a program's own help says. Each
# COMMAND prints a part of it. Lines that do not begin with a space are headings or text; of the others, two
# columns are an option and what it does, and a line that begins far to the right goes on with what stands above
# it.
set -e
name=$1 version=$2 what=$3
shift 3
printf '.TH %s 1 "" "lanced %s" "lanced"\n.SH NAME\n%s \\- %s\n.SH DESCRIPTION\n' "$name" "$version" "$name" "$what"
for command; do
    help=$(sh -c "$command") # a command that fails ends this
    printf '%s\n' "$help"
    echo
done | awk '
function escape(text) {
    gsub(/\\/, "\\e", text)
    gsub(/-/, "\\-", text)
    gsub(/"/, "\\(dq", text)
    return text ~ /^[.\047]/ ? "\\&" text : text
}
function term(text) { print ".TP\n.B " escape(text) }
/^$/ { if (told) print ".PP"; next }
{ told = 1 }
/^[^ ]/ {
    if (length($0) <= 40 && $0 !~ /[.:]$/ && $0 !~ /^usage/)
        print ".SS " escape($0)
    else
        print ".PP\n" escape($0)
    next
}
{
    match($0, /^ +/)
    indent = RLENGTH
    text = substr($0, indent + 1)
    if (indent >= 16)
        print escape(text)
    else if (match(text, /  +/)) {
        term(substr(text, 1, RSTART - 1))
        print escape(substr(text, RSTART + RLENGTH))
    } else if (indent <= 4 || text ~ /^-/)
        term(text)
    else
        print escape(text)
}'
