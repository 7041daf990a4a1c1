#!/bin/sh
# Links the launcher: runs the link command that follows, with every shared library on it replaced by its archive, and fails on
# anything that the linker says, except the three calls of libcrypto that glibc warns of in a static program (dlopen,
# getaddrinfo, gethostbyname: engines and BIO_connect, which the launcher does not use).
set -u
output=
previous=
count=$#
while [ "$count" -gt 0 ]; do
  argument=$1
  shift
  count=$((count - 1))
  [ "$previous" = "-o" ] && output=$argument
  previous=$argument
  case $argument in
    /*.so | /*.so.*)
      archive=${argument%%.so*}.a
      # Without an archive it is left out: if something of it is needed, the link says so.
      [ -e "$archive" ] && set -- "$@" "$archive"
      ;;
    *) set -- "$@" "$argument" ;;
  esac
done
said=$("$@" 2>&1)
code=$?
unexpected=$(printf '%s\n' "$said" | grep -v -e '^$' \
  -e 'libcrypto\.a(.*): in function ' -e 'in function `.*'"'"':$' \
  -e "warning: Using 'dlopen' in statically linked applications requires at runtime the shared libraries" \
  -e "warning: Using 'getaddrinfo' in statically linked applications requires at runtime the shared libraries" \
  -e "warning: Using 'gethostbyname' in statically linked applications requires at runtime the shared libraries")
# A warning names the archive's member on the line above it or on its own: one that isn't libcrypto's is ours.
foreign=$(printf '%s\n' "$said" | grep -e 'in function `' | grep -v 'libcrypto\.a(')
if [ "$code" -ne 0 ] || [ -n "$unexpected" ] || [ -n "$foreign" ]; then
  printf '%s\n' "$said" >&2
  [ "$code" -ne 0 ] || echo "link-static.sh: the linker warns of more than libcrypto's dlopen, getaddrinfo and gethostbyname; a launcher like this may open the image's libraries" >&2
  rm -f "$output"
  exit 1
fi
