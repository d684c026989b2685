#!/usr/bin/env bash
# The step of action.yml: inputs come as VERIFY_* variables, never as text of this script.
set -euo pipefail

command=${VERIFY_COMMAND:-verify}
options=(--format github)

case "${VERIFY_MODE:-default}" in
  default) ;;
  audit) options+=(--audit) ;;
  recompute) options+=(--recompute) ;;
  *)
    echo "::error title=verify claims::mode must be default, audit or recompute"
    exit 2
    ;;
esac

flag() {
  case "$2" in
    true) options+=("--$1") ;;
    false | "") ;;
    *)
      echo "::error title=verify claims::$1 must be true or false"
      exit 2
      ;;
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
read -r -d '' -a patterns <<<"${VERIFY_FILES:-}" || true
files=()
for pattern in "${patterns[@]}"; do
  if ! found=$(compgen -G "$pattern"); then
    echo "::error title=verify claims::no claims file matches the input 'files'"
    exit 2
  fi
  while IFS= read -r file; do files+=("$file"); done <<<"$found"
done
if [ ${#files[@]} -eq 0 ]; then
  echo "::error title=verify claims::the input 'files' names no claims file"
  exit 2
fi

code=0
"$command" claims "${options[@]}" -- "${files[@]}" || code=$?
if [ -n "${GITHUB_OUTPUT:-}" ]; then
  echo "exit-code=$code" >>"$GITHUB_OUTPUT"
fi
exit "$code"
