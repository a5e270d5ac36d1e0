#!/bin/sh
# Run the tests of the pyannote engine in an environment of their own: torch has no place in the
# main one. Where it cannot be installed, say so and succeed: the main tests do not depend on it.
#   tools/test_pyannote.sh PYTHON ENVIRONMENT
set -eu
python=$1
environment=$2
pip="$environment/bin/python -m pip --disable-pip-version-check --quiet"
limit_s=${PYANNOTE_INSTALL_S:-240}

skip() {
  echo "############################################################"
  echo "# The pyannote engine was NOT tested: $1"
  echo "############################################################"
  exit 0
}

install() {
  "$python" -m venv "$environment" || return 1
  # A torch for processors alone: a file of this machine, or PyTorch's own index. Plain PyPI has
  # only the one with 3 GB of CUDA.
  timeout "$limit_s" $pip install torch==2.13.0+cpu ||
    timeout "$limit_s" $pip install torch==2.13.0+cpu \
      --index-url https://download.pytorch.org/whl/cpu || return 1
  timeout "$limit_s" $pip install --require-hashes --no-deps -r requirements.lock || return 1
  timeout "$limit_s" $pip install -e ".[pyannote]" || return 1
  touch "$environment/.ready"
}

if [ ! -f "$environment/.ready" ] || [ pyproject.toml -nt "$environment/.ready" ]; then
  echo "Installing torch and pyannote.audio (about 1.5 GB, once)"
  install || skip "torch or pyannote.audio could not be installed here"
fi
timeout "${PYANNOTE_TEST_S:-900}" "$environment/bin/python" -m pytest -m pyannote tests/contract/test_speakers.py
