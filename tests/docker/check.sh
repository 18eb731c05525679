#!/usr/bin/env bash
# Builds the image from the Dockerfile as it is and runs it as docs/docker.md promises, without a Docker engine: as root,
# with Debian's buildah, podman, runc and mmdebstrap, and hadolint. The output of one run is in output.txt beside this file.
#   BASE_IMAGE=...  the base, if it is in the local storage; otherwise a stand-in is made of Debian's own Python
#   WHEELS=DIR      wheels that pip may take, such as the CPU build of torch (default: pip's find-links)
#   STORE=DIR       where images are kept between runs (default: nowhere)
#   THREADS=N       of the run in the container (default: 2)
set -euo pipefail
cd "$(dirname "$0")/../.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
store=${STORE:-$work}
mkdir -p "$store"
export CONTAINERS_STORAGE_CONF=$work/storage.conf
printf '[storage]\ndriver = "overlay"\ngraphroot = "%s/graph"\nrunroot = "%s/run"\n' "$store" "$store" \
  > "$CONTAINERS_STORAGE_CONF"
image=localhost/ddtool:check
limits=(--runtime runc --network none --ulimit nofile=1024:1024 --ulimit nproc=4096:4096)
version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' ddtool/version.py)

passed() { echo "ok: $*"; }
failed() { echo "FAILED: $*"; exit 1; }

run() { # run [podman's options] -- [command]: as strictly as it can be run
  local options=()
  while [ "$1" != -- ]; do options+=("$1"); shift; done
  podman run --rm "${limits[@]}" --read-only --cap-drop ALL --security-opt no-new-privileges --pull never \
    "${options[@]}" "$image" "${@:2}"
}

make_base() { # Debian's Python under the name that BASE_IMAGE has below
  local container root
  mmdebstrap --quiet --mode=root --variant=minbase --include=python3-venv,python3-pip,ca-certificates \
    bookworm "$work/base.tar"
  container=$(buildah from scratch)
  root=$(buildah mount "$container")
  tar -C "$root" -xf "$work/base.tar"
  ln -s python3 "$root/usr/bin/python"
  cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
  buildah umount "$container" > /dev/null
  buildah commit --quiet --rm --format docker "$container" "$base" > /dev/null
}

hadolint Dockerfile
passed "hadolint $(hadolint --version | grep -oE '[0-9.]+$') finds nothing in the Dockerfile"

base=${BASE_IMAGE:-localhost/python-stand-in:bookworm}
buildah inspect --type image "$base" > /dev/null 2>&1 || make_base
echo "base: $base, $(podman run --rm "${limits[@]}" "$base" python --version)"

# With wheels at hand torch is taken from them, as from an index of CPU builds.
wheels=${WHEELS:-$(python3 -m pip config get global.find-links 2> /dev/null || true)}
printf '[global]\nfind-links = /wheels\ncert = /etc/ssl/certs/ca-certificates.crt\n' > "$work/pip.conf"
index=${wheels:+file:///wheels}
start=$SECONDS
buildah build --layers --isolation chroot --format docker --pull-never --tag "$image" \
  --volume "$work/pip.conf:/etc/pip.conf:ro" --volume "${wheels:-$work}:/wheels:ro" \
  --build-arg BASE_IMAGE="$base" --build-arg TORCH_INDEX="$index" --build-arg VERSION="$version" \
  --build-arg SOURCE=https://host.example/ddtool . \
  > "$work/build.log" 2>&1 || { cat "$work/build.log"; failed "the build"; }
passed "built in $((SECONDS - start)) s"
size() { podman image inspect --format '{{.Size}}' "$1"; }
echo "size: $(($(size "$image") / 1000000)) MB, of which the base $(($(size "$base") / 1000000)) MB"

[ "$(run --entrypoint id -- -u)" = 1000 ] || failed "the user"
passed "runs as user 1000"
[[ $(run -- --help) == *"ddtool adapt sample --ipc 10"* ]] || failed "--help"
[ "$(run -- --version)" = "ddtool $version" ] || failed "--version"
label=$(podman image inspect --format '{{index .Labels "org.opencontainers.image.version"}}' "$image")
[ "$label" = "$version" ] || failed "the label says version '$label'"
passed "--help, --version ($version, as the label says)"
label=$(podman image inspect --format '{{index .Labels "org.opencontainers.image.source"}}' "$image")
[ "$label" = https://host.example/ddtool ] || failed "the label says source '$label'"
packages='
import re
from importlib.metadata import distributions
for package in distributions(path=[p for p in __import__("sys").path if p.startswith("/opt/ddtool/")]):
    if package.name != "ddtool":
        print(re.sub("[-_.]+", "-", package.name).lower(), package.version.partition("+")[0], sep="==")'
torch=docker/torch.lock
[ -z "$index" ] || { torch=$work/torch.lock; grep '^torch==' docker/torch.lock > "$torch"; }
differs=$(run --entrypoint python -- -c "$packages" | LC_ALL=C sort -f |
  diff - <(grep -ohE '^[a-z0-9-]+==[0-9][^ ;\\]*' docker/requirements.lock "$torch" | LC_ALL=C sort -f) || true)
[ -z "$differs" ] || failed "not the packages of the lock: $differs"
passed "holds the packages of the locks, no other"

unwanted='find /cache /data -mindepth 1; ls -d /src /root/.cache /opt/ddtool/bin/pip 2> /dev/null || true'
left=$(run --entrypoint sh -- -c "$unwanted")
[ -z "$left" ] || failed "left in the image: $left"
passed "no caches, no sources, no pip in the environment"
{ podman image inspect "$image"; podman history --no-trunc --format '{{.CreatedBy}}' "$image"; } > "$work/told"
! grep -iE 'token|password|secret|hf_[A-Za-z]{30}' "$work/told" || failed "the configuration or the history"
run --entrypoint sh -- -c '! grep -rqE "hf_[A-Za-z]{30}" /opt/ddtool/lib/*/site-packages/ddtool /etc 2> /dev/null' ||
  failed "a token in a file"
passed "no token in the configuration, the history and the files"
! run --entrypoint touch -- /opt/ddtool/x 2> /dev/null || failed "the root file system can be written"
run --user 4711:4711 -- adapt sample --ipc 10 --dry-run --quiet > /dev/null || failed "another user"
passed "the root file system is read-only; any other user may run it, too"

mkdir -m 777 "$work/runs"
command="adapt sample --ipc 10 --steps 20 --refine-steps 50 --threads ${THREADS:-2} --out runs/sample"
echo "+ ddtool $command (no network, read-only root, no capabilities)"
start=$SECONDS
# shellcheck disable=SC2086
run --volume "$work/runs:/data/runs" -- $command 2> "$work/run.log" || { cat "$work/run.log"; failed "the run"; }
tail -n 2 "$work/run.log"
[ "$(stat -c %u "$work/runs/sample/results.json")" = 1000 ] || failed "whose the run is"
for file in preview.png synthetic/ipc10/train.parquet; do [ -s "$work/runs/sample/$file" ] || failed "no $file"; done
passed "the run is in the mounted folder, user 1000's ($((SECONDS - start)) s)"
