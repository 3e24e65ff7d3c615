# Sourced by the scripts beside it: what they all need from the machine.
# shellcheck shell=bash

# Debian's packages for building the program.
build_packages=(libsodium-dev libssl-dev pkg-config)

is_root() { [ "$(id -u)" = 0 ]; }

say() { printf '%s\n' "$*"; }

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# Milliseconds of a clock that nobody sets.
now_ms() {
    local up
    read -r up _ </proc/uptime
    echo $((10#${up/./} * 10))
}

seconds_since() { printf '%d.%02d s' $((($(now_ms) - $1) / 1000)) $((($(now_ms) - $1) % 1000 / 10)); }

# missing_packages PACKAGE...: those of them that are not installed.
missing_packages() {
    local package
    for package in "$@"; do
        # Any flavour of nginx will do.
        if [ "$package" = nginx-light ] && command -v nginx >/dev/null; then continue; fi
        [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || echo "$package"
    done
}

# install_packages PACKAGE...: as root by apt-get; otherwise prints the command. Fails if one is still missing.
install_packages() {
    local missing
    command -v dpkg-query >/dev/null || {
        say "not a Debian system: these packages' counterparts are taken to be there: $*"
        return 0
    }
    mapfile -t missing < <(missing_packages "$@")
    [ ${#missing[@]} -gt 0 ] || return 0
    if ! is_root; then
        say "Missing packages. Run as root:  apt-get install --no-install-recommends ${missing[*]}" >&2
        return 1
    fi
    say "Installing ${missing[*]}"
    # RUNLEVEL keeps a new nginx from being started as a service.
    RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}" >/dev/null ||
        { RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get update >/dev/null &&
            RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}" >/dev/null; }
}

# Puts the Swift toolchain on the PATH.
find_swift() {
    local directory
    command -v swift >/dev/null && return 0
    for directory in /opt/swift/usr/bin /usr/local/swift/usr/bin "$HOME/.local/share/swiftly/bin" "$HOME/swift/usr/bin"; do
        if [ -x "$directory/swift" ]; then
            PATH=$directory:$PATH
            return 0
        fi
    done
    die "no Swift toolchain found. Install Swift 6.2 or later from https://www.swift.org/install/linux/ and put it on the PATH."
}

# Builds kakuremichi and bench in release and sets `binary`, or fails and sets `build_fault`.
# shellcheck disable=SC2034
build_for_figures() {
    local product log
    build_fault="packages for the build are missing"
    install_packages "${build_packages[@]}" || return 1
    build_fault="no Swift toolchain"
    (find_swift) || return 1
    find_swift
    build_fault="the release build failed"
    # Plainly: -enable-testing slows the program down.
    say "building kakuremichi and bench in release"
    for product in kakuremichi bench; do
        log=$(swift build -c release --product $product 2>&1) || {
            printf '%s\n' "$log" | tail -n 20
            return 1
        }
    done
    binary="$(swift build -c release --show-bin-path)/kakuremichi"
}

# stage_program PROGRAM DIRECTORY: copies it there as `kakuremichi`, with those shared libraries that are not the system's own, so that a user who
# can read neither the build directory nor the toolchain can start it with LD_LIBRARY_PATH=DIRECTORY.
stage_program() {
    local library
    cp "$1" "$2/kakuremichi" || return 1
    while read -r library; do
        case $library in
            /lib/* | /lib64/* | /usr/lib/* | /usr/lib64/*) ;;
            *) cp -L "$library" "$2/" || return 1 ;;
        esac
    done < <(ldd "$1" 2>/dev/null | sed -nE 's/.*=> (\/[^ ]+) .*/\1/p')
    if ldd "$1" 2>/dev/null | grep 'not found' >&2; then return 1; fi
}
