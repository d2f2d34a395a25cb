#!/bin/sh
# Writes Redis' ACL file to stdout, users.acl with the passwords in it (as SHA-256):
#   sh users.sh > /etc/redis/users.acl
# Takes REDIS_ADMIN_PASSWORD, REDIS_PRODUCER_PASSWORD and so on, and VETLINE_QUEUE_KEY_PREFIX, from the environment. A
# user whose password is not set is left out.
set -eu

prefix=${VETLINE_QUEUE_KEY_PREFIX:-}
case $prefix in
*[!A-Za-z0-9_:.{}-]*)
  echo "users.sh: VETLINE_QUEUE_KEY_PREFIX has a letter that means something in a pattern" >&2
  exit 2
  ;;
esac

grep '^user ' "$(dirname "$0")/users.acl" | while read -r _ name rest; do
  case $name in
  default) printf 'user default %s\n' "$rest"; continue ;;
  admin) ;;
  *) rest=$(printf %s "$rest" | sed "s/ \([~&]\)/ \1$prefix/g") ;;
  esac
  eval "password=\${REDIS_$(printf %s "$name" | tr '[:lower:]' '[:upper:]')_PASSWORD:-}"
  [ -n "$password" ] || continue
  digest=$(printf %s "$password" | sha256sum)
  printf 'user %s #%s %s\n' "$name" "${digest%% *}" "$rest"
done
