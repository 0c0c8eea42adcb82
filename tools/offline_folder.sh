#!/usr/bin/env bash
# A folder that holds all that DAP needs on a machine without a network.
#
#     bash tools/offline_folder.sh OUT [--python 3.12] [FOLDER …]
#
# Run it in a clone, where there is a network. OUT must not exist; FOLDERs, such as images, are
# copied into it. --python is the version on the other machine, a Linux machine with x86-64 that
# has torch and torchvision already. Copy OUT there and run any program of DAP by
#
#     bash OUT/run.sh tools/benchmarks/gpu.py [OPTIONS]
#
# in the folder OUT. The first call installs below OUT; nothing is compiled.
set -euo pipefail
usage() { sed -n '2,13p' "$0" >&2; exit 2; }
[ $# -ge 1 ] || usage
out=$1 python=3.12
shift
if [ "${1:-}" = --python ]; then
    [ $# -ge 2 ] || usage
    python=$2
    shift 2
fi
[ ! -e "$out" ] || { echo "error: $out exists; name a new folder" >&2; exit 1; }
for folder in "$@"; do
    [ -d "$folder" ] || { echo "error: $folder is no folder" >&2; exit 1; }
done
root=$(git -C "$(dirname "$0")" rev-parse --show-toplevel)
mkdir -p "$out/dap" "$out/wheels"
git -C "$root" archive HEAD | tar -x -C "$out/dap"
for folder in "$@"; do cp -rL "$folder" "$out/$(basename "$folder")"; done

# The locked versions for that Python, without mim and docs and without what comes with its torch.
uv export --quiet --project "$root" --frozen --no-group mim --no-group docs --no-hashes --no-emit-project --no-annotate \
    --no-header --output-file "$out/locked.txt"
uv pip compile --quiet --python-version "$python" --python-platform x86_64-manylinux_2_28 --no-deps \
    --no-annotate --no-header --output-file "$out/wanted.txt" "$out/locked.txt"
grep -vE '^(torch|torchvision|triton|nvidia|cuda)' "$out/wanted.txt" > "$out/needed.txt"
tags=()
for glibc in 17 24 27 28 31 34; do tags+=(--platform "manylinux_2_${glibc}_x86_64"); done
uv tool run --quiet pip download --quiet --no-deps --dest "$out/wheels" --only-binary=:all: \
    --python-version "$python" --implementation cp --platform manylinux2014_x86_64 \
    --platform manylinux1_x86_64 "${tags[@]}" --requirement "$out/needed.txt"
uv build --quiet --wheel --out-dir "$out/wheels" "$root"
rm "$out/locked.txt" "$out/wanted.txt" "$out/needed.txt"

cat > "$out/run.sh" <<'END'
#!/usr/bin/env bash
# Made by tools/offline_folder.sh. Installs below this folder once, then runs a program of DAP:
#     bash run.sh PROGRAM [OPTIONS], such as tools/benchmarks/gpu.py
set -euo pipefail
cd "$(dirname "$0")"
export PYTHONPATH="$PWD/site${PYTHONPATH:+:$PYTHONPATH}" PATH="$PWD/site/bin:$PATH"
if [ ! -e site/installed ]; then
    rm -rf site
    python3 -m pip install --quiet --no-index --no-deps --target site wheels/*.whl
    # The .pth file of setuptools, which brings distutils back, counts in site folders alone.
    echo "import site; site.addsitedir('$PWD/site')" > site/sitecustomize.py
    touch site/installed
fi
[ $# -ge 1 ] || { python3 dap/tools/doctor.py; exit; }
program=$1
shift
exec python3 "dap/$program" "$@"
END
du -sh "$out"
echo "copy $out to the machine, and run there: bash $(basename "$out")/run.sh PROGRAM [OPTIONS]"
