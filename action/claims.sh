#!/usr/bin/env bash
# The step of action.yml: inputs come as VERIFY_* variables, never as text of this script.
# Empty arrays are expanded as ${x[@]+"${x[@]}"}: before bash 4.4 they count as unset.
set -euo pipefail

command=${VERIFY_COMMAND:-verify}
options=(--format github)

finish() {
  if [ -n "${GITHUB_OUTPUT:-}" ]; then
    echo "exit-code=$1" >>"$GITHUB_OUTPUT"
  fi
  exit "$1"
}

# An error in the inputs. Text of theirs is escaped, so that it can end no line.
refuse() {
  local text=$1
  text=${text//'%'/%25}
  text=${text//$'\r'/%0D}
  text=${text//$'\n'/%0A}
  echo "::error title=verify claims::$text"
  finish 2
}

case "${VERIFY_MODE:-default}" in
  default) ;;
  audit) options+=(--audit) ;;
  recompute) options+=(--recompute) ;;
  *) refuse "mode must be default, audit or recompute" ;;
esac

flag() {
  case "$2" in
    true) options+=("--$1") ;;
    false | "") ;;
    *) refuse "$1 must be true or false" ;;
  esac
}
flag allow-unchecked "${VERIFY_ALLOW_UNCHECKED:-}"
flag fetch "${VERIFY_FETCH:-}"

while IFS= read -r folder; do
  if [ -n "$folder" ]; then
    options+=(--model-dir "$folder")
  fi
done <<<"${VERIFY_MODEL_DIRS:-}"

# Patterns are expanded, and one that matches nothing is an error: a claims file must not drop out unseen.
# A file that two patterns match is given twice, which the command reads once.
# ** is any number of folders; the bash of macOS (3.2) takes it for *, and files would drop out unseen.
globstar=yes
shopt -s globstar 2>/dev/null || globstar=no
read -r -d '' -a patterns <<<"${VERIFY_FILES:-}" || true
files=()
for pattern in ${patterns[@]+"${patterns[@]}"}; do
  if [ "$globstar" = no ] && [[ $pattern == *"**"* ]]; then
    refuse "the pattern '$pattern' needs bash 4 or newer"
  fi
  if ! found=$(compgen -G "$pattern"); then
    refuse "no claims file matches the pattern '$pattern' of the input 'files'"
  fi
  while IFS= read -r file; do files+=("$file"); done <<<"$found"
done
if [ ${#files[@]} -eq 0 ]; then
  refuse "the input 'files' names no claims file"
fi

code=0
"$command" claims "${options[@]}" -- "${files[@]}" || code=$?
finish "$code"
