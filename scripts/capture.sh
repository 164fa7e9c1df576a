# shellcheck shell=bash disable=SC2154 # root and scratch are set by x and common.sh
# A second opinion on what tunnels put on the wire: frames of a lab, read by tshark. Sourced by ./x.
#
# By hand only, since tshark brings a hundred megabytes along; the tests proper read frames with code of their own.

# tshark knows VXLAN by IANA's port only.
capture_ports() {
    case $1 in
    vxlan) echo "8472 vxlan" ;;
    geneve) echo "6081 geneve" ;;
    *) die "capture: there is no tunnel protocol '$1'; vxlan or geneve" ;;
    esac
}

# capture [vxlan|geneve] [ipv4|ipv6|dual]: a lab of two nodes in that mode, all its pods probing each other.
capture() {
    local protocol=${1:-vxlan} families=${2:-dual} port dissector
    read -r port dissector < <(capture_ports "$protocol")
    [[ -n $port ]] || exit 1
    # No silent skip: whoever asks for it wants it.
    command -v tshark >/dev/null ||
        die "capture: NOT CHECKED, tshark is not here: sudo apt-get install --no-install-recommends tshark"
    phase bootstrap bootstrap
    build
    need_scratch
    capture_lab=capture-$$
    trap 'capture_down; clean_up' EXIT
    printf 'routingMode: tunnel\ntunnelProtocol: %s\n' "$protocol" >"$scratch/values.yaml"
    phase "lab with $protocol, $families" lab up --nodes 2 --families "$families" --values "$scratch/values.yaml" --no-check
    phase "checksums by software" complete_checksums
    phase "capture" record_frames "$scratch/frames.pcap"
    phase "tshark" read_frames "$scratch/frames.pcap" "$port" "$dissector"
    say_times
}

lab() { "$(binary kinesin)" lab --name "$capture_lab" "$@"; }

capture_down() {
    [[ -z ${dumper:-} ]] || kill "$dumper" 2>/dev/null || true
    lab down >&2 || say "capture: 'kinesin lab --name $capture_lab down' failed"
}

# veth never fills in what a card would: without this each inner checksum of TCP and UDP is half of one.
complete_checksums() {
    local node
    cat >"/run/kinesin-lab/$capture_lab/no-checksum-offload.py" <<'PYTHON'
# ETHTOOL_STXCSUM (include/uapi/linux/ethtool.h) by SIOCETHTOOL, as `ethtool -K eth0 tx off`.
import array, fcntl, socket, struct
value = array.array("B", struct.pack("II", 0x17, 0))
request = struct.pack("16sP", b"eth0", value.buffer_info()[0])
fcntl.ioctl(socket.socket(socket.AF_INET, socket.SOCK_DGRAM), 0x8946, request)
PYTHON
    # shellcheck disable=SC2016 # the inner shell's parameters
    for node in cilium-ctr cilium-w1; do
        cp "/run/kinesin-lab/$capture_lab/no-checksum-offload.py" "/run/kinesin-lab/$capture_lab/nodes/$node/" &&
            lab exec "$node" -- sh -c 'for netns in /run/netns/*; do
                nsenter --net="$netns" python3 "$0" || echo "$netns keeps its offload"
            done' "/run/kinesin-lab/$capture_lab/nodes/$node/no-checksum-offload.py" || return
    done
}

# Everything that one node's uplink sees while each pod asks each other one; probes of the agents come on top.
record_frames() {
    lab exec cilium-ctr -- tshark -q -i eth1 -w - >"$1" 2>"$scratch/tshark.log" &
    dumper=$!
    sleep 3
    lab check || return
    send_much || return
    kill "$dumper" && wait "$dumper" 2>/dev/null
    dumper=''
    [[ -s $1 ]] || { cat "$scratch/tshark.log" >&2 && return 1; }
}

# Packets of full size, and acknowledgements: each pod of one node posts a megabyte to each pod of the other.
send_much() {
    local addresses
    mapfile -t addresses < <(lab kubectl get pods --field-selector spec.nodeName=cilium-w1 \
        -o jsonpath='{range .items[*].status.podIPs[*]}{.ip}{"\n"}{end}')
    # What answers need not like it: it has been sent.
    # shellcheck disable=SC2016 # the inner shell's parameters
    lab exec cilium-ctr -- sh -c 'head -c 1000000 /dev/zero >/tmp/much
        for netns in /run/netns/*; do
            for address in "$@"; do
                case $address in *:*) address="[$address]" ;; esac
                nsenter --net="$netns" curl -sg -m 2 -o /dev/null --data-binary @/tmp/much "http://$address/"
            done
        done
        true' sh "${addresses[@]}"
}

# read_frames FILE PORT DISSECTOR
read_frames() {
    local file=$1 port=$2 dissector=$3 failed=0
    # Sets `found` to a line for each frame that a filter lets through. A filter that this tshark does not know ends all: it
    # would let nothing through, which is what is wanted of most.
    frames() {
        local log=$scratch/tshark.log
        tshark -r "$file" -d "udp.port==$port,$dissector" -o ip.check_checksum:TRUE -o udp.check_checksum:TRUE \
            -o tcp.check_checksum:TRUE -Y "$1" "${@:2}" >"$scratch/found" 2>"$log" ||
            { cat "$log" >&2 && die "capture: tshark cannot answer: $1"; }
        mapfile -t found <"$scratch/found"
    }
    expect_none() {
        local what=$1 filter=$2 found
        frames "$filter"
        if ((${#found[@]} == 0)); then
            say "  no frame with $what"
        else
            say "  FAILED: ${#found[@]} frames with $what, such as:"
            printf '%s\n' "${found[@]:0:3}" >&2
            failed=1
        fi
    }
    expect_some() {
        local what=$1 filter=$2 found
        frames "$filter"
        say "  ${#found[@]} $what"
        ((${#found[@]} >= 20)) || { say "  FAILED: too few to say anything" && failed=1; }
    }
    expect_some "tunnelled frames" "udp.dstport == $port"
    expect_some "of more than 1400 bytes" "udp.dstport == $port && (ip.len > 1400 || ipv6.plen > 1400)"
    expect_none "anything malformed or cut off" "_ws.malformed || _ws.short || _ws.expert.group == \"Malformed\""
    expect_none "a wrong checksum of IP, ICMP, TCP or UDP" "$dissector && (ip.checksum.status == \"Bad\" ||
        udp.checksum.status == \"Bad\" || tcp.checksum.status == \"Bad\" || icmp.checksum.status == \"Bad\" ||
        icmpv6.checksum.status == \"Bad\")"
    expect_none "a wrong length" "udp.length.bad || udp.length.bad_zero || ip.bogus_ip_length ||
        ip.bogus_header_length || tcp.bogus_header_length || geneve.option.length.invalid"
    expect_none "a tunnel port that is no $dissector" "udp.dstport == $port && !$dissector"
    expect_none "no IP in the tunnel" "$dissector && count(ip) + count(ipv6) < 2"
    expect_none "an outer header that may be fragmented" "$dissector && ip && ip.flags.df#1 == 0"
    # Identities as they go on the wire (datapath/abi, `identity`): health, pods without one of their own, nodes.
    expect_none "a VNI that is no identity" "$dissector && !($dissector.vni in {4..6})"
    return "$failed"
}
