#!/usr/bin/env bash
# A folder that holds all that the benchmark needs, for a GPU machine without a network.
#
#     bash projects/real_mini/pack.sh OUT IMAGES VOC [PYTHON]
#
# Run it in a clone, where there is a network; OUT must not exist, PYTHON is the version there
# (default: 3.12). Copy OUT to the machine, which has Python, torch 2.11 with CUDA, nvcc and a
# compiler, and run there: bash OUT/run.sh [OPTIONS of run.py]
# It builds mmcv for the GPU, installs the rest below OUT, and runs `run.py --scale gpu`.
set -euo pipefail
[ $# -ge 3 ] || { sed -n '2,9p' "$0"; exit 2; }
out=$1 images=$2 voc=$3 python=${4:-3.12}
[ ! -e "$out" ] || { echo "error: $out exists; name a new folder" >&2; exit 1; }
for folder in "$images" "$voc/JPEGImages" "$voc/Annotations" "$voc/ImageSets/Main"; do
    [ -d "$folder" ] || { echo "error: $folder is no folder" >&2; exit 1; }
done
root=$(git -C "$(dirname "$0")" rev-parse --show-toplevel)
mkdir -p "$out/dap" "$out/wheels"
git -C "$root" archive HEAD | tar -x -C "$out/dap"
cp -rL "$images" "$out/images"
cp -rL "$voc" "$out/$(basename "$voc")"

# The locked versions for that Python, but what comes with its torch.
uv export --quiet --project "$root" --frozen --no-group dev --no-hashes --no-emit-project \
    --no-annotate --no-header --output-file "$out/locked.txt"
tags=()
for glibc in 17 24 27 28 31 34; do tags+=(--platform "manylinux_2_${glibc}_x86_64"); done
uv pip compile --quiet --python-version "$python" --python-platform x86_64-manylinux_2_28 --no-deps \
    --no-annotate --no-header --output-file "$out/wanted.txt" "$out/locked.txt"
grep -vE '^(torch|torchvision|triton|nvidia|cuda|mmcv)' "$out/wanted.txt" > "$out/needed.txt"
echo ninja >> "$out/needed.txt"  # without it mmcv's files are compiled one after the other
pip=(uv run --quiet --project "$root" python -m pip download --quiet --no-deps --dest "$out/wheels")
"${pip[@]}" --only-binary=:all: --python-version "$python" --implementation cp \
    --platform manylinux2014_x86_64 --platform manylinux1_x86_64 "${tags[@]}" \
    --requirement "$out/needed.txt"
"${pip[@]}" --no-binary=mmcv --no-build-isolation "$(grep '^mmcv==' "$out/wanted.txt")"
uv build --quiet --wheel --out-dir "$out/wheels" "$root"

cat > "$out/run.sh" <<END
#!/usr/bin/env bash
# Made by pack.sh. Installs below this folder once, then runs the benchmark.
set -euo pipefail
cd "\$(dirname "\$0")"
export PYTHONPATH="\$PWD/site" PATH="\$PWD/site/bin:\$PATH" PYTHONDONTWRITEBYTECODE=
if [ ! -e site/installed ]; then
    rm -rf site
    python3 -m pip install --quiet --no-index --no-deps --target site wheels/*.whl
    FORCE_CUDA=1 MMCV_WITH_OPS=1 MAX_JOBS=\$(nproc) CFLAGS="-O3 -DNDEBUG -fwrapv -g0" \\
    TORCH_CUDA_ARCH_LIST=\$(python3 -c \\
        "import torch; print('.'.join(map(str, torch.cuda.get_device_capability())))") \\
        python3 -m pip install --quiet --no-index --no-deps --no-build-isolation --target site \\
        wheels/mmcv-*.tar.gz
    touch site/installed
fi
time python3 dap/projects/real_mini/run.py --images images --voc "$(basename "$voc")" \\
    --scale gpu --work-dir results "\$@"
END
du -sh "$out"
echo "copy $out to the machine, and run there: bash $(basename "$out")/run.sh"
