#!/bin/bash
# Runs the GPU benchmark on a machine that has PyTorch but cannot reach a package index. Start it in the repository root:
#     bash benchmarks/gpu_run.sh FOLDER OUT [options of bench_gpu.py]
# FOLDER is the folder that gpu_wheels.py filled. On 16 cores or more, tests of the network run on four of them at the
# same time. OUT gets gpu.json, written after every row, the trace of the profile, and the logs.
folder=$1 out=$2
shift 2
python=${PYTHON:-python3} site=$(mktemp -d) started=$SECONDS
mkdir -p "$out"
"$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$site" "$folder"/*.whl || exit
export PYTHONPATH=$site:$PWD PYTHONUNBUFFERED=1
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
echo "$(nproc) cores, shared memory: $(df -h /dev/shm | tail -1)"
tests=() bench=()
if [ "$(nproc)" -ge 16 ]; then
    tests=(taskset -c 12-15) bench=(taskset -c 0-11)
    # without conftest, because it needs ffmpeg
    OMP_NUM_THREADS=4 "${tests[@]}" timeout 380 "$python" -m pytest -q -o addopts= -p no:cacheprovider --noconftest \
        tests/zoo/nn/test_lif_triton.py tests/zoo/nn >"$out/tests.log" 2>&1 &
fi
"${bench[@]}" "$python" benchmarks/bench_gpu.py --video "$folder/clip.avi" --json "$out/gpu.json" \
    --trace "$out/trace.json.gz" "$@" >"$out/bench.log" 2>"$out/errors.log"
echo "exit code $? after $((SECONDS - started)) s"
tail -n 70 "$out/bench.log" | cut -c 1-170
[ ! -e "$out/tests.log" ] || tail -n 15 "$out/tests.log"
