# shellcheck shell=bash disable=SC2154 # tools_base and scratch are set by tools.sh and common.sh
# What the benchmarks compare with: the reference CNI plugins. Sourced by ./x.

# Newer ones are as good; the report tells the version that ran.
cni_plugins_version=1.9.1
cni_plugins=$tools_base/cni-plugins-$cni_plugins_version

has_cni_plugins() { [[ -x $cni_plugins/bridge && -x $cni_plugins/host-local ]]; }

# Without them ./x bench says how to go on: another directory, or without the comparison.
need_cni_plugins() {
    local what="bridge and host-local $cni_plugins_version, to compare with"
    [[ -z ${KINESIN_BENCH_CNI_DIR:-} ]] || return 0
    if ! has_cni_plugins; then
        lock
        has_cni_plugins || { command -v go >/dev/null && attempt "$what: building with Go" cni_plugins_from_go; } ||
            attempt "$what: fetching from Debian" cni_plugins_from_debian ||
            say "the reference plugins could not be fetched: give their directory with --cni-dir, or --without bridge"
    fi
    if has_cni_plugins; then export KINESIN_BENCH_CNI_DIR=$cni_plugins; fi
}

# As upstream builds its releases: static, with the version in it.
cni_plugins_from_go() {
    local module=github.com/containernetworking/plugins
    need_scratch
    env CGO_ENABLED=0 GOBIN="$scratch/cni" GOFLAGS=-trimpath go install \
        -ldflags "-s -w -X $module/pkg/utils/buildversion.BuildVersion=v$cni_plugins_version" \
        "$module/plugins/main/bridge@v$cni_plugins_version" "$module/plugins/ipam/host-local@v$cni_plugins_version" &&
        keep_cni_plugins "$scratch/cni"
}

# Unpacked only; the machine's own packages stay as they are.
cni_plugins_from_debian() {
    local uri keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    command -v apt-get >/dev/null && [[ -r $keyring ]] || return 1
    uri=$(debian_uri) && [[ -n $uri ]] || return 1
    need_scratch
    rm -rf "$scratch/apt"
    mkdir -p "$scratch/apt/lists/partial" "$scratch/apt/cache/archives/partial" "$scratch/cni"
    echo "deb [signed-by=$keyring] $uri unstable main" >"$scratch/apt/sources.list"
    private_apt apt-get -q update &&
        (cd "$scratch/cni" && private_apt apt-get -q download containernetworking-plugins && dpkg -x ./*.deb .) &&
        keep_cni_plugins "$scratch/cni/usr/lib/cni"
}

# Complete or not at all.
keep_cni_plugins() {
    rm -rf "$cni_plugins.new" &&
        mkdir -p "$cni_plugins.new" && cp "$1/bridge" "$1/host-local" "$cni_plugins.new" &&
        rm -rf "$cni_plugins" && mv "$cni_plugins.new" "$cni_plugins" && rm -rf "$scratch/cni"
}
