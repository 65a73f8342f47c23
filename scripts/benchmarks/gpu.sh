#!/usr/bin/env bash
# Everything that is worth measuring on a GPU, in under nine minutes: scripts/benchmarks/gpu.sh OUT_DIR [--tiny] [--seconds 480]
# On a host without network, wheels of what it lacks lie in .whl/. --tiny: the same on a CPU in less than a minute, for CI.
# Further words go to gpu_cases.py: --cases 14x576 takes only sizes that begin so, --variants plain,ours only these.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${1:?usage: gpu.sh OUT_DIR [--tiny] [--seconds 480] [--cases 14x576] [--variants plain,ours]}
shift
mkdir -p "$out"
tiny='' seconds=480 before=''
for word in "$@"; do
  [ "$word" = --tiny ] && tiny=--tiny
  [ "$before" = --seconds ] && seconds=$word
  before=$word
done
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTORCH_ALLOC_CONF=expandable_segments:True
export TORCHINDUCTOR_CACHE_DIR=${TORCHINDUCTOR_CACHE_DIR:-${TMPDIR:-/tmp}/compiled}
python=${PYTHON:-python3}
if ! "$python" -c 'import diffusers, peft' 2>/dev/null; then
  "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target .site .whl/*.whl
  export PYTHONPATH=$PWD/.site:$PYTHONPATH
fi
limit=$((seconds + 60))
nice timeout "$limit" "$python" -m scripts.benchmarks.predictions "$out" $tiny >"$out/predictions.log" 2>&1 &
predicting=$!
failed=0
timeout --signal=INT --kill-after=10 "$limit" "$python" -m scripts.benchmarks.gpu_cases "$out" "$@" 2>&1 | tee "$out/gpu.log" || failed=$?
wait "$predicting" || echo "not all predictions: $out/predictions.log"
exit "$failed"
