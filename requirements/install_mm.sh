#!/bin/sh
# Install a family of mm* packages beside the torch that an environment has:
#   sh requirements/install_mm.sh PYTHON REQUIREMENTS [PLACE ...]
# mmcv's operators load under one build of torch only, and a wheel's name does not tell which. A ready
# wheel that loads is taken from the places (folders, or pages of links), else one that was compiled
# here before, else they are compiled, and the wheel is kept.
set -eu
python=$1 requirements=$2
shift 2
mmcv=$(grep -E '^(onedl-)?mmcv==' "$requirements")
name=${mmcv%%=*}

pip() { "$python" -m pip --disable-pip-version-check "$@"; }

# Without importing mmcv, which needs the rest of the family and an OpenCV that loads.
fits() {
  "$python" -c '
import sys, torch
from importlib import metadata, util
if "==".join([sys.argv[1], metadata.version(sys.argv[1])]) != sys.argv[2]:
    sys.exit(1)
sys.path[:0] = util.find_spec("mmcv").submodule_search_locations
import _ext' "$name" "$mmcv" 2>/dev/null
}

# The wheel that pip finds, if it fits: install_wheel --find-links PLACE ...
install_wheel() {
  pip install -q --no-deps --only-binary :all: "$@" "$mmcv" 2>&1 |
    grep -v '^ERROR: \(Could not find a version\|No matching distribution\)'
  if fits; then
    echo "== $mmcv: a ready wheel loads${2:+, from $2}"
  else
    pip uninstall -qy "$name" 2>/dev/null && false
  fi
}

install_ready() {
  for place in "$@" ''; do
    install_wheel ${place:+--find-links "$place"} && return
  done
  [ -d "$kept" ] && install_wheel --find-links "$kept" --no-index
}

# What operators depend on: torch, Python, and the GPUs they are compiled for.
build=$("$python" -W ignore -c '
import os, re, sys, torch
gpus = {"%d.%d" % torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())}
gpus = os.getenv("TORCH_CUDA_ARCH_LIST") or " ".join(sorted(gpus))
cuda = "cuda" if os.getenv("FORCE_CUDA") == "1" else ""
parts = "torch%s cp%d%d %s %s" % (torch.__version__, *sys.version_info[:2], cuda, gpus)
print("-".join(re.findall(r"[\w.+]+", parts)))')
kept=${XDG_CACHE_HOME:-$HOME/.cache}/mmdet_dino_r1/wheels/$build

compile() {
  log=$(mktemp) fresh=$(mktemp -d)
  jobs=${MAX_JOBS:-$("$python" -c 'import os; print(len(os.sched_getaffinity(0)))')}
  echo "== no ready wheel of $mmcv loads under $build${*:+; looked in: $*}"
  echo "== compiling it, $jobs files at once, about a quarter of an hour on two cores; log: $log"
  # torch looks for ninja on PATH; without it, it compiles one file after the other
  PATH=$(cd "$(dirname "$python")" && pwd):$PATH NINJA_STATUS='compiled %f/%t ' MAX_JOBS=$jobs \
    MMCV_WITH_OPS=1 CFLAGS=-g0 "$python" -m pip wheel -v --no-build-isolation --no-deps \
    --no-cache-dir --no-binary "$name" -w "$fresh" "$mmcv" 2>&1 | tee "$log" |
    while read -r word count _; do
      case $word$count in compiled*[05]/*) echo "== compiled $count files" ;; esac
    done
  if pip install -q --no-deps --no-index "$fresh"/*.whl && fits; then
    mkdir -p "$kept" && mv "$fresh"/*.whl "$kept" && rm -r "$fresh" "$log"
    echo "== kept for the next environment in $kept"
  else
    tail -n 40 "$log"
    echo "mmcv has no operators (mmcv._ext) for this torch. Its build needs a C++ compiler and,"
    echo "for CUDA, nvcc of torch's CUDA version; see the output above, then run make again."
    exit 1
  fi
}

fits || install_ready "$@" || compile "$@"
pip install --no-build-isolation -r "$requirements"
