# shellcheck shell=bash disable=SC2154 # tools_base, scratch and root are set by tools.sh, common.sh and x
# What `./x kernels` boots: Debian's kernels, an emulator, and an image of the programs. Sourced by ./x.
#
#   $vm/qemu         starts the emulator
#   $vm/busybox      all other programs of a virtual machine
#   $vm/newest       the release that was Debian's newest when it was looked up
#   $vm/<release>    vmlinuz, modules.cpio with what a lab needs, modules, which names those, and package, which says where
#                    they come from
#
# All are packages, unpacked only: nothing is installed on the machine.

vm=$tools_base/kernels

# One of each series that Debian keeps for long, and the newest: Debian 11, 12, 13, a backport, and what is newest.
kernel_defaults=(5.10 6.1 6.12 6.18 newest)
kernel_suites=(bullseye bookworm trixie trixie-backports)
# The flavour for virtual machines: small, and it has all that is needed here.
kernel_flavour=cloud-amd64
# Whatever else a lab needs is built into these kernels, or into some of them.
kernel_modules=(bridge veth overlay cls_bpf sch_ingress vxlan geneve sch_netem)

# Sets `releases` to what the names mean, after fetching what is missing.
#
# need_kernels LOOK NAME...: a name is a series (6.1), a release (6.1.0-50-cloud-amd64) or `newest`. With LOOK=yes Debian
# is asked for newer releases of a series that is here already.
need_kernels() {
    local look=$1 name release
    shift
    [[ $(uname -m) == x86_64 ]] || die "kernels: the programs that are built here run on $(uname -m), the kernels on x86_64"
    need_qemu
    need_busybox
    releases=()
    for name in "$@"; do
        release=''
        [[ $look == yes ]] || release=$(kernel_here "$name")
        if [[ -z $release ]]; then
            look_into_debian
            release=$(kernel_offered "$name")
            [[ -n $release ]] || die "kernels: Debian (${kernel_suites[*]}) has no kernel '$name': ./x kernels --list"
            is_kernel_whole "$release" || fetch_kernel "$release"
            [[ $name != newest ]] || echo "$release" >"$vm/newest"
        fi
        releases+=("$release")
    done
    unlock
}

# The newest release of that name that is here.
kernel_here() {
    local release
    if [[ $1 == newest ]]; then
        if [[ -s $vm/newest ]]; then release=$(<"$vm/newest"); fi
    else
        release=$(find "$vm" -mindepth 2 -maxdepth 2 -name package -printf '%h\n' 2>/dev/null | sed 's|.*/||' | newest_kernel "$1")
    fi
    if [[ -n ${release:-} ]] && is_kernel_whole "$release"; then echo "$release"; fi
}

# Whether it is here with all the modules that are wanted today.
is_kernel_whole() {
    [[ -f $vm/$1/package && -f $vm/$1/modules && $(<"$vm/$1/modules") == "${kernel_modules[*]}" ]]
}

# The newest release of that name that Debian has.
kernel_offered() { kernels_offered | newest_kernel "$1"; }

kernels_offered() {
    private_apt apt-cache pkgnames linux-image- |
        sed -nE "s/^linux-image-([0-9]+\\.[0-9].*-$kernel_flavour)\$/\\1/p"
}

newest_kernel() {
    sort -V | awk -v name="$1" '
        name == "newest" || $0 == name || index($0, name ".") == 1 { found = $0 }
        END { print found }'
}

# Once a run; a configuration of its own leaves the machine's apt alone.
look_into_debian() {
    local uri suite keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    [[ -z ${looked_into_debian:-} ]] || return 0
    if command -v apt-get >/dev/null && [[ -r $keyring ]]; then uri=$(debian_uri); fi
    [[ -n ${uri:-} ]] ||
        die "kernels: they come from Debian's archive, and the sources of this machine's apt do not name it"
    need_scratch
    rm -rf "$scratch/apt"
    mkdir -p "$scratch/apt/lists/partial" "$scratch/apt/cache/archives/partial"
    for suite in "${kernel_suites[@]}"; do
        echo "deb [arch=amd64 signed-by=$keyring] $uri $suite main"
    done >"$scratch/apt/sources.list"
    step "lists of Debian's kernels: fetching with apt-get" private_apt apt-get -q -o Acquire::Languages=none update
    looked_into_debian=yes
}

fetch_kernel() {
    local release=$1 package names=()
    lock
    # Since 6.19 the image is a package that only names the two with something in it.
    if [[ -n $(private_apt apt-cache pkgnames "linux-binary-$release") ]]; then
        names=("linux-binary-$release" "linux-modules-$release")
    else
        names=("linux-image-$release")
    fi
    step "kernel $release: fetching from Debian" download_kernel "${names[@]}"
    # shellcheck disable=SC2016 # fields of the package, not variables
    package=$(dpkg-deb --show --showformat '${Package} ${Version}' "$scratch"/kernel/"${names[0]}"_*.deb)
    step "kernel $release: unpacking" keep_kernel "$release" "$package"
}

download_kernel() {
    rm -rf "$scratch/kernel" && mkdir "$scratch/kernel" &&
        (cd "$scratch/kernel" && private_apt apt-get -q download "$@")
}

# keep_kernel RELEASE PACKAGE: complete or not at all.
keep_kernel() {
    local release=$1 tree=$scratch/kernel/tree vmlinuz modules module deb number=100 new=$vm/$1.new
    mkdir -p "$tree/lib/modules" || return
    for deb in "$scratch"/kernel/*.deb; do dpkg -x "$deb" "$tree" || return; done
    # Newer packages have everything below /usr.
    modules=$tree/lib/modules
    if [[ -d $tree/usr/lib/modules/$release ]]; then mv "$tree/usr/lib/modules/$release" "$modules/" || return; fi
    for vmlinuz in "$tree/boot/vmlinuz-$release" "$modules/$release/vmlinuz"; do [[ ! -f $vmlinuz ]] || break; done
    "$vm/busybox" depmod -b "$tree" "$release" || return
    rm -rf "$new" && mkdir -p "$new" "$scratch/kernel/image/modules" && cp "$vmlinuz" "$new/vmlinuz" || return
    # Numbered, as each has to come after those that it needs.
    while read -r module; do
        number=$((number + 1))
        unpack_module "$modules/$release/$module" "$scratch/kernel/image/modules/$number-${module##*/}" || return
    done < <(modules_in_order "$modules/$release/modules.dep")
    pack "$scratch/kernel/image" "$new/modules.cpio" && echo "${kernel_modules[*]}" >"$new/modules" &&
        echo "$2" >"$new/package" &&
        rm -rf "${vm:?}/$release" && mv "$new" "$vm/$release" && rm -rf "$scratch/kernel"
}

# A line of modules.dep is `module: what it needs`, the nearest first.
modules_in_order() {
    local name
    for name in "${kernel_modules[@]}"; do
        awk -v name="$name" '{
            own = $1; sub(/:$/, "", own); base = own; sub(/.*\//, "", base); sub(/\.ko(\..*)?$/, "", base)
            if (base == name) { for (i = NF; i > 1; i--) print $i; print own }
        }' "$1"
    done | awk '!seen[$0]++'
}

unpack_module() {
    case $1 in
    *.ko) cp "$1" "$2" ;;
    *.ko.xz) "$vm/busybox" unxz -c "$1" >"${2%.xz}" ;;
    *)
        echo "the module $1 is compressed in a way that is not known here"
        return 1
        ;;
    esac
}

# pack DIRECTORY FILE: as the archive that a kernel unpacks.
pack() { (cd "$1" && find . | sort | "$vm/busybox" cpio -o -H newc) >"$2"; }

# --- Programs ---

# download_packages NAME...: with all that they need and this machine lacks, into $scratch/debs.
download_packages() {
    rm -rf "$scratch/debs" && mkdir -p "$scratch/debs/partial" &&
        apt_get -o Dir::Cache::archives="$scratch/debs" -o APT::Sandbox::User=root \
            install --download-only --yes --no-install-recommends "$@"
}

fetch_packages() {
    need_scratch
    command -v apt-get >/dev/null || return 1
    # Lists may be old or missing; only root can fetch them anew.
    download_packages "$@" || { can_apt && apt_get update && download_packages "$@"; }
}

has_qemu() { [[ -x $vm/qemu ]] && "$vm/qemu" --version >/dev/null 2>&1; }

need_qemu() {
    has_qemu && return 0
    lock
    has_qemu && return 0
    mkdir -p "$vm"
    if command -v qemu-system-x86_64 >/dev/null; then
        write_qemu "" "$(command -v qemu-system-x86_64)"
    else
        step "qemu, to boot kernels: fetching with apt-get" fetch_packages qemu-system-x86
        step "qemu: unpacking" unpack_qemu
    fi
    has_qemu || die "qemu does not start: $("$vm/qemu" --version 2>&1 || true)"
}

# Installed, it could put out packages that the machine uses.
unpack_qemu() {
    local deb new=$vm/qemu-tree.new
    rm -rf "$new" "$vm/qemu-tree" && mkdir -p "$new" || return
    for deb in "$scratch"/debs/*.deb; do dpkg -x "$deb" "$new" || return; done
    rm -rf "$scratch/debs" && mv "$new" "$vm/qemu-tree" && write_qemu "$vm/qemu-tree" "$vm/qemu-tree/usr/bin/qemu-system-x86_64"
}

# write_qemu TREE PROGRAM
write_qemu() {
    local tree=$1 program=$2 libraries data
    libraries=$tree/usr/lib/x86_64-linux-gnu:$tree/lib/x86_64-linux-gnu
    data=(-L "$tree/usr/share/qemu" -L "$tree/usr/share/seabios")
    {
        echo '#!/bin/sh'
        if [[ -n $tree ]]; then
            printf 'LD_LIBRARY_PATH=%q exec %q' "$libraries" "$program"
            printf ' %q' "${data[@]}"
        else
            printf 'exec %q' "$program"
        fi
        # shellcheck disable=SC2016 # for the script that is written
        printf ' "$@"\n'
    } >"$vm/.qemu.new"
    chmod 755 "$vm/.qemu.new" && mv "$vm/.qemu.new" "$vm/qemu"
}

has_busybox() { [[ -x $vm/busybox ]] && "$vm/busybox" true; }

need_busybox() {
    has_busybox && return 0
    lock
    has_busybox && return 0
    step "busybox, for the virtual machines: fetching with apt-get" busybox_from_package
}

busybox_from_package() {
    need_scratch
    mkdir -p "$vm" && rm -rf "$scratch/busybox" && mkdir "$scratch/busybox" || return
    (cd "$scratch/busybox" && { apt_get download busybox-static || { can_apt && apt_get update && apt_get download busybox-static; }; } &&
        dpkg -x ./*.deb .) && find "$scratch/busybox" -name busybox -type f -exec cp '{}' "$vm/.busybox.new" \; &&
        chmod 755 "$vm/.busybox.new" && mv "$vm/.busybox.new" "$vm/busybox" && rm -rf "$scratch/busybox"
}

# --- The image ---

# Sets `packet_tests` to the tests that run packets through the programs, and `chassis_tests` to those with real traffic; as
# `./x test` builds them.
build_tests() {
    local log
    need_scratch
    log=$scratch/tests.json
    cargo test --workspace --test test_run --test chassis --no-run --message-format=json-render-diagnostics >"$log" || return
    packet_tests=$(test_program test_run "$log")
    chassis_tests=$(test_program chassis "$log")
    [[ -n $packet_tests && -n $chassis_tests ]]
}

# test_program NAME FILE: where cargo says that it has put it.
test_program() {
    sed -nE 's/.*"kind":\["test"\][^{}]*"name":"'"$1"'".*"executable":"([^"]*)".*/\1/p' "$2" | tail -n 1
}

# put_program FILE IMAGE NAME: with what it is linked with.
put_program() {
    local library
    strip --strip-debug -o "$2/opt/kinesin/$3" "$1" || return
    while read -r library; do
        [[ -e $2$library ]] || { mkdir -p "$2${library%/*}" && cp -L "$library" "$2$library"; } || return
    done < <(ldd "$1" | grep -oE '/[^ ]+')
}

# make_image DIRECTORY FILE: the programs of that directory, the tests, and busybox.
make_image() {
    local programs=$1 file=$2 image program
    need_scratch
    image=$scratch/image
    rm -rf "$image"
    mkdir -p "$image"/{bin,sbin,usr/bin,usr/sbin,opt/kinesin} "${file%/*}" || return
    cp "$vm/busybox" "$image/bin/busybox" && cp kernels/guest/init "$image/init" && chmod 755 "$image/init" || return
    for program in kinesin kinesin-agent kinesin-operator kinesin-cni kinesin-kernels; do
        put_program "$programs/$program" "$image" "$program" || return
    done
    put_program "$packet_tests" "$image" kinesin-test-run && put_program "$chassis_tests" "$image" kinesin-test-chassis || return
    # The programs' client wants some, though there is nobody to trust in the machine.
    mkdir -p "$image/etc/ssl/certs" && cp -L /etc/ssl/certs/ca-certificates.crt "$image/etc/ssl/certs/" || return
    pack "$image" "$file.new" && mv "$file.new" "$file" && rm -rf "$image"
}

# kernels [--list | [--fetch] [OPTION OF kinesin-kernels run...] [NAME...]]
kernels() {
    local look=no names=() options=() image target=${CARGO_TARGET_DIR:-target}
    [[ $target == /* ]] || target=$root/$target
    image=$target/kernels/image.cpio
    while (($#)); do
        case $1 in
        --list)
            look_into_debian
            kernels_offered | sort -V
            return
            ;;
        --fetch) look=yes ;;
        --limit)
            (($# > 1)) || die "kernels: --limit needs a number of seconds"
            options+=("$1" "$2")
            shift
            ;;
        -*) options+=("$1") ;;
        *) names+=("$1") ;;
        esac
        shift
    done
    ((${#names[@]})) || names=("${kernel_defaults[@]}")
    phase bootstrap bootstrap
    need_kernels "$look" "${names[@]}"
    build
    phase "tests with packets and tunnels" build_tests
    phase "image of the programs" make_image "$(dirname "$(binary kinesin)")" "$image"
    say_times
    become "$(binary kinesin-kernels)" run --kernels "$vm" --qemu "$vm/qemu" --image "$image" "${options[@]}" -- "${releases[@]}"
}
