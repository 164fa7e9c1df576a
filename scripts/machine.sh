# shellcheck shell=bash
# What no installation can provide: root, the kernel and its type information. Sourced by ./x.

# The oldest kernel that the data path supports here; fails on an architecture it does not know.
kernel_floor() {
    case $(uname -m) in
    x86_64) echo 5.15 ;;
    aarch64) echo 6.1 ;;
    *) return 1 ;;
    esac
}

# at_least VERSION FLOOR, by the first two numbers.
at_least() {
    local have want
    IFS=.- read -r -a have <<<"$1"
    IFS=.- read -r -a want <<<"$2"
    ((have[0] > want[0] || (have[0] == want[0] && have[1] >= want[1])))
}

root_problem() {
    ((EUID == 0)) || echo "root is needed, to make network namespaces and load eBPF programs (try: sudo ./x $1)"
}

kernel_problem() {
    local floor
    if ! floor=$(kernel_floor); then
        echo "$(uname -m) is not supported; x86_64 and aarch64 are"
    elif ! at_least "$(uname -r)" "$floor"; then
        echo "kernel $(uname -r) is too old; $(uname -m) needs $floor or newer"
    fi
}

btf_problem() {
    [[ -r /sys/kernel/btf/vmlinux ]] ||
        echo "/sys/kernel/btf/vmlinux is missing; the kernel needs CONFIG_DEBUG_INFO_BTF (and /sys mounted)"
}

# Ends the script with one line, before anything has been changed.
require_machine() {
    local problem
    for problem in "$(root_problem "$1")" "$(kernel_problem)" "$(btf_problem)"; do
        [[ -z $problem ]] || die "$1: $problem"
    done
}
