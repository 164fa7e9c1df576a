# shellcheck shell=bash
# Messages, phases with their times, and steps that show they live. Sourced by ./x.

say() { printf 'x: %s\n' "$*" >&2; }

die() {
    say "$*"
    exit 1
}

# Sets `scratch` to a directory that is gone when the script ends; made when first needed.
need_scratch() {
    [[ -n ${scratch:-} ]] || scratch=$(mktemp -d)
}

clean_up() {
    [[ -z ${pulse:-} ]] || kill "$pulse" 2>/dev/null || true
    [[ -z ${scratch:-} ]] || rm -rf "$scratch"
    scratch=''
}
trap clean_up EXIT
# Without these an interrupted bash ends by the signal, skipping the trap above.
trap 'exit 130' INT
trap 'exit 143' TERM

# Milliseconds; the separator in EPOCHREALTIME follows the locale.
milliseconds() { printf '%s\n' $((${EPOCHREALTIME/[.,]/} / 1000)); }

# "12.3 s" since the time given.
since() {
    local tenths=$((($(milliseconds) - $1) / 100))
    printf '%d.%d s\n' $((tenths / 10)) $((tenths % 10))
}

times=()

# phase NAME COMMAND...: runs the command with its own output; a failure ends the script.
#
# A function called as `phase NAME function` must not rely on `set -e`, which bash ignores there.
phase() {
    local name=$1 start status=0
    shift
    start=$(milliseconds)
    # The bootstrap tells its steps itself, and nothing when there are none.
    [[ $name == bootstrap ]] || say "$name: $*"
    "$@" || status=$?
    times+=("$name $(since "$start")")
    if ((status)); then
        say_times
        say "$name failed: $*"
        exit "$status"
    fi
}

say_times() {
    local all
    printf -v all '%s, ' "${times[@]}"
    say "${all%, }"
}

# attempt WHAT COMMAND...: a step that may take long. Its output is kept and shown as a sign of life: on a terminal the
# last line as it comes, elsewhere every 15 seconds. Leaves the whole output in $scratch/log.
attempt() {
    local what=$1 start status=0
    shift
    need_scratch
    start=$(milliseconds)
    say "$what"
    : >"$scratch/log"
    show_pulse "$start" &
    pulse=$!
    "$@" >"$scratch/log" 2>&1 </dev/null || status=$?
    kill "$pulse" 2>/dev/null || true
    wait "$pulse" 2>/dev/null || true
    pulse=''
    if [[ -t 2 ]]; then printf '\r\e[K' >&2; fi
    if ((status == 0)); then
        say "  done in $(since "$start")"
    else
        say "  failed after $(since "$start"): $(last_line)"
    fi
    return "$status"
}

# step WHAT COMMAND...: an attempt that must succeed.
step() {
    if ! attempt "$@"; then
        tail -n 30 "$scratch/log" >&2
        die "cannot go on without it"
    fi
}

last_line() { tail -c 400 "$scratch/log" 2>/dev/null | tr '\r' '\n' | grep -v '^[[:space:]]*$' | tail -n 1 | cut -c 1-100; }

show_pulse() {
    trap - EXIT INT TERM
    local tick=15 quiet
    if [[ -t 2 ]]; then tick=1; fi
    # Reading from a pipe that nobody writes to waits without a child process, which would outlive this one.
    exec {quiet}<> <(:)
    while ! read -rt "$tick" -u "$quiet"; do
        if [[ -t 2 ]]; then
            printf '\r\e[Kx:   %s  %s' "$(since "$1")" "$(last_line)" >&2
        else
            say "  still at it after $(since "$1"): $(last_line)"
        fi
    done
}
