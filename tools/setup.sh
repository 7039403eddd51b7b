#!/bin/sh
# setup.sh: installs what lanced needs, and only what is missing.
#
#   tools/setup.sh demo   to build, and to run the demo and the Python client
#   tools/setup.sh test   the same, and what the tests need
#   tools/setup.sh test-deep   the same, and more compilers
#   tools/setup.sh farm   the same as test, and the schedulers that lance-farm is tested on (its tests do without)
#   tools/setup.sh comfyui   the same, and what the tests in a real ComfyUI need (a browser too; they do without)
#
# Two steps: Debian packages (apt-get, with sudo when not root), then a private Python environment in .venv.
# Both say beforehand what they install. When nothing is missing it takes a fraction of a second and prints nothing.
set -eu
cd "$(dirname "$0")/.."

build_packages="gcc libc6-dev make libnng-dev libcjson-dev libpng-dev zlib1g-dev libpcre2-dev \
libutf8proc-dev libsqlite3-dev libopenblas-dev"
media_packages="libjpeg-dev libwebp-dev libtiff-dev libavif-dev libheif-dev libavformat-dev libavcodec-dev \
libavutil-dev libswscale-dev"
python_packages="python3 python3-venv"
test_packages="libcmocka-dev"
deep_packages="g++ clang gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static"
farm_packages="slurm-wlm munge"
browser_packages="chromium chromium-driver fonts-dejavu-core"

case "${1:-}" in
farm) packages="$build_packages $media_packages $python_packages $test_packages" requirements=requirements-dev.txt ;;
demo) packages="$build_packages $media_packages $python_packages" requirements=requirements.txt ;;
test) packages="$build_packages $media_packages $python_packages $test_packages" requirements=requirements-dev.txt ;;
test-deep)
    packages="$build_packages $media_packages $python_packages $test_packages $deep_packages"
    requirements=requirements-dev.txt ;;
comfyui) packages="$build_packages $media_packages $python_packages" requirements=requirements-comfyui.txt ;;
*) echo "usage: tools/setup.sh demo|test|test-deep|farm|comfyui" >&2; exit 2 ;;
esac

say() { echo "setup: $*"; }

stop() {
    echo >&2
    for line in "$@"; do echo "setup: $line" >&2; done
    exit 1
}

# The packages of $packages that dpkg does not report as installed.
missing_packages() {
    for package in $packages; do
        status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) || status=
        [ "$status" = installed ] || printf '%s ' "$package"
    done
}

install_packages() {
    if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
        # Not a Debian: the compiler names each missing header, and Python is looked for below.
        return 0
    fi
    missing=$(missing_packages)
    [ -n "$missing" ] || return 0
    command="apt-get install --no-install-recommends -y ${missing% }"
    root=
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || stop "these Debian packages are missing: ${missing% }" \
            "There is no sudo here, so please run this line as root, then try again:" "    apt-get update && $command"
        root="sudo env"
    fi
    say "installing Debian packages: ${missing% }${root:+ (sudo may ask for your password)}"
    log=$(mktemp)
    # A package list that cannot be refreshed is no reason to stop: the old one may do.
    $root DEBIAN_FRONTEND=noninteractive apt-get update >"$log" 2>&1 ||
        say "apt-get update failed; going on with the old lists"
    # shellcheck disable=SC2086 # the command is a list of words on purpose
    if ! ${root:-env} DEBIAN_FRONTEND=noninteractive $command >>"$log" 2>&1; then
        tail -n 20 "$log" >&2
        rm -f "$log"
        stop "apt-get could not install them (its last lines are above). Please run this as root, then try again:" \
            "    apt-get update && $command"
    fi
    rm -f "$log"
}

# A Python of at least 3.10 that can make environments. Debian's own comes first: apt-get has just completed it.
find_python() {
    for candidate in /usr/bin/python3 python3; do
        if "$candidate" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            command -v "$candidate"
            return 0
        fi
    done
    return 1
}

install_python() {
    stamp=.venv/installed-$requirements
    wanted=$(cat requirements.txt "$requirements" | cksum)
    if [ -x .venv/bin/python ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
        return 0
    fi
    python=$(find_python) || stop "no Python 3.10 or newer with the venv module was found." \
        "On Debian: apt-get install python3 python3-venv"
    packages=$(sed 's/#.*//; /^-r/d; /^ *$/d' requirements.txt "$requirements" | sort -u | tr '\n' ' ')
    say "installing into .venv (with $python): $packages"
    if [ ! -x .venv/bin/python ] || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
        rm -rf .venv
        "$python" -m venv .venv
    fi
    .venv/bin/python -m pip install -qq --disable-pip-version-check -r "$requirements" ||
        stop "pip could not install $requirements (its message is above); is there a network?"
    echo "$wanted" >"$stamp"
    # All the others begin with these.
    cat requirements.txt requirements.txt | cksum >.venv/installed-requirements.txt
}

install_packages
install_python
if [ "$1" = comfyui ] && ! command -v chromedriver >/dev/null; then
    packages=$browser_packages
    (install_packages) || say "going on without Chromium: what needs a browser will be skipped"
fi
if [ "$1" = farm ]; then
    packages=$farm_packages
    (install_packages) || say "going on without Slurm: its tests will be skipped"
    packages=$browser_packages
    (install_packages) || say "going on without Chromium: the page's test will be skipped"
    if [ ! -x build/openjd/bin/openjd ]; then
        python=$(find_python) && "$python" -m venv build/openjd &&
            build/openjd/bin/python -m pip install -qq --disable-pip-version-check openjd-cli ||
            say "going on without OpenJobDescription: its tests will be skipped"
    fi
fi
