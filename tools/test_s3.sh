#!/bin/sh
# Run the store's suites on Ceph, a real S3 server. Where it cannot be installed, say so and
# succeed: the main tests do not depend on it.
#   tools/test_s3.sh PYTHON
set -eu
python=$1
packages="ceph-base ceph-mon ceph-osd radosgw"
limit_s=${S3_INSTALL_S:-240}

skip() {
  echo "############################################################"
  echo "# The store was NOT tested on a real S3 server: $1"
  echo "############################################################"
  exit 0
}

installed() {
  for program in ceph ceph-mon ceph-osd monmaptool radosgw radosgw-admin; do
    command -v "$program" >/dev/null || return 1
  done
}

install() {
  echo "Installing Ceph from the distribution's packages (70 MB to get, once)"
  timeout "$limit_s" apt-get update -qq &&
    DEBIAN_FRONTEND=noninteractive timeout "$limit_s" \
      apt-get install -y -qq --no-install-recommends $packages >/dev/null
}

if ! installed; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    install && installed || skip "Ceph could not be installed here"
  else
    skip "install Ceph first (Debian: sudo apt-get install $packages)"
  fi
fi
exec timeout "${S3_TEST_S:-1800}" "$python" -m pytest -m s3
