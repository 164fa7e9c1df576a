/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Written from the Rust declarations by kinesin-abi; do not edit. A test compares the two. */
#ifndef KINESIN_ABI_H
#define KINESIN_ABI_H

#include <linux/types.h>

#define KINESIN_LAYOUT 1
#define KINESIN_STATE_VERSION 1

/* Stages: indices of the slot array. */
#define KINESIN_STAGE_LB 0
#define KINESIN_STAGE_EGRESS_POLICY 1
#define KINESIN_STAGE_ROUTE 2
#define KINESIN_STAGE_ENCRYPT 3
#define KINESIN_STAGE_REV_NAT 4
#define KINESIN_STAGE_HOST_FW_IN 5
#define KINESIN_STAGE_INGRESS_POLICY 6
#define KINESIN_STAGE_PROXY 7
#define KINESIN_STAGE_DELIVER 8
#define KINESIN_STAGE_HOST_FW_OUT 9
#define KINESIN_STAGE_MASQUERADE 10

/* Continuations: a slot program ends by tail-calling one of these. */
#define KINESIN_CONT_NEXT 0
#define KINESIN_CONT_DELIVER 1
#define KINESIN_CONT_DROP 2

/* Entries: where the packet met the pipeline. */
#define KINESIN_ENTRY_FROM_CONTAINER 0
#define KINESIN_ENTRY_TO_CONTAINER 1
#define KINESIN_ENTRY_FROM_NETDEV 2
#define KINESIN_ENTRY_FROM_HOST 3
#define KINESIN_ENTRY_FROM_OVERLAY 4

/* Drop reasons. */
#define KINESIN_DROP_INVALID_SOURCE 132
#define KINESIN_DROP_POLICY_DENIED 133
#define KINESIN_DROP_INVALID_PACKET 134
#define KINESIN_DROP_TRUNCATED_TRANSPORT 135
#define KINESIN_DROP_FRAGMENTATION_NEEDED 136
#define KINESIN_DROP_UNSUPPORTED_PROTOCOL 139
#define KINESIN_DROP_MISSED_TAIL_CALL 140
#define KINESIN_DROP_WRITE_ERROR 141
#define KINESIN_DROP_INVALID_TUNNEL 147
#define KINESIN_DROP_GENEVE_OPTION 149
#define KINESIN_DROP_UNROUTABLE 151
#define KINESIN_DROP_EXTENSION_HEADER 156
#define KINESIN_DROP_FRAGMENTED 157
#define KINESIN_DROP_NO_TUNNEL 160
#define KINESIN_DROP_NO_CONFIGURATION 165
#define KINESIN_DROP_FIB_FAILED 169
#define KINESIN_DROP_TUNNEL_FORBIDDEN 170
#define KINESIN_DROP_INVALID_IDENTITY 171
#define KINESIN_DROP_UNKNOWN_SENDER 172
#define KINESIN_DROP_FORBIDDEN_ICMP6 176
#define KINESIN_DROP_VLAN_FORBIDDEN 182
#define KINESIN_DROP_TTL_EXCEEDED 196
#define KINESIN_DROP_RATE_LIMITED 198
#define KINESIN_DROP_MULTICAST 201
#define KINESIN_DROP_CONGESTION 249
#define KINESIN_DROP_SLOT 250

/*
 * Maps of a slot program: KIN_STATE, a per-CPU array with one struct kinesin_packet_state, shared with the
 * pipeline by its pin <bpffs>/kinesin/v1/maps/KIN_STATE; and KIN_CONT, a program array of 3 entries of
 * the program's own, which the chassis fills. Both names are what the chassis looks for.
 */
#define KINESIN_CONTINUATIONS 3

struct kinesin_packet_state {
	__u16 version;
	__u8 entry;
	__u8 stage;
	__u8 link_header;
	__u8 family;
	__u8 protocol;
	__u8 reason;
	__u16 l4_offset;
	__u16 sport_be;
	__u16 dport_be;
	__u16 source_endpoint;
	__u32 saddr[4];
	__u32 daddr[4];
	__u32 source_identity;
	__u32 destination_identity;
	__u32 ifindex;
	__u32 rule_cookie;
	__u32 peer[4];
	__u8 carrier;
	__u8 ct_state;
	__u16 proxy_port_be;
	__u16 rev_nat_be;
	__u16 pad;
	__u32 backend;
	__u32 scratch[5];
};
_Static_assert(sizeof(struct kinesin_packet_state) == 112, "size");
_Static_assert(__builtin_offsetof(struct kinesin_packet_state, version) == 0, "version");
_Static_assert(__builtin_offsetof(struct kinesin_packet_state, entry) == 2, "entry");
_Static_assert(__builtin_offsetof(struct kinesin_packet_state, stage) == 3, "stage");
_Static_assert(__builtin_offsetof(struct kinesin_packet_state, link_header) == 4, "link_header");
_Static_assert(__builtin_offsetof(struct kinesin_packet_state, family) == 5, "family");
_Static_assert(__builtin_offsetof(struct kinesin_packet_state, protocol) == 6, "protocol");
_Static_assert(__builtin_offsetof(struct kinesin_packet_state, reason) == 7, "reason");
_Static_assert(__builtin_offsetof(struct kinesin_packet_state, l4_offset) == 8, "l4_offset");
_Static_assert(__builtin_offsetof(struct kinesin_packet_state, sport_be) == 10, "sport_be");
_Static_assert(__builtin_offsetof(struct kinesin_packet_state, dport_be) == 12, "dport_be");
_Static_assert(__builtin_offsetof(struct kinesin_packet_state, source_endpoint) == 14, "source_endpoint");
_Static_assert(__builtin_offsetof(struct kinesin_packet_state, saddr) == 16, "saddr");
_Static_assert(__builtin_offsetof(struct kinesin_packet_state, daddr) == 32, "daddr");
_Static_assert(__builtin_offsetof(struct kinesin_packet_state, source_identity) == 48, "source_identity");
_Static_assert(__builtin_offsetof(struct kinesin_packet_state, destination_identity) == 52, "destination_identity");
_Static_assert(__builtin_offsetof(struct kinesin_packet_state, ifindex) == 56, "ifindex");
_Static_assert(__builtin_offsetof(struct kinesin_packet_state, rule_cookie) == 60, "rule_cookie");
_Static_assert(__builtin_offsetof(struct kinesin_packet_state, peer) == 64, "peer");
_Static_assert(__builtin_offsetof(struct kinesin_packet_state, carrier) == 80, "carrier");
_Static_assert(__builtin_offsetof(struct kinesin_packet_state, ct_state) == 81, "ct_state");
_Static_assert(__builtin_offsetof(struct kinesin_packet_state, proxy_port_be) == 82, "proxy_port_be");
_Static_assert(__builtin_offsetof(struct kinesin_packet_state, rev_nat_be) == 84, "rev_nat_be");
_Static_assert(__builtin_offsetof(struct kinesin_packet_state, pad) == 86, "pad");
_Static_assert(__builtin_offsetof(struct kinesin_packet_state, backend) == 88, "backend");
_Static_assert(__builtin_offsetof(struct kinesin_packet_state, scratch) == 92, "scratch");

struct kinesin_endpoint_key {
	__u32 addr[4];
	__u8 family;
	__u8 pad[3];
};
_Static_assert(sizeof(struct kinesin_endpoint_key) == 20, "size");
_Static_assert(__builtin_offsetof(struct kinesin_endpoint_key, addr) == 0, "addr");
_Static_assert(__builtin_offsetof(struct kinesin_endpoint_key, family) == 16, "family");
_Static_assert(__builtin_offsetof(struct kinesin_endpoint_key, pad) == 17, "pad");

struct kinesin_endpoint {
	__u32 ifindex;
	__u16 id;
	__u16 flags;
	__u32 identity;
	__u32 policy_generation;
	__u32 eth[3];
	__u32 parent_ifindex;
	__u64 netns_cookie;
};
_Static_assert(sizeof(struct kinesin_endpoint) == 40, "size");
_Static_assert(__builtin_offsetof(struct kinesin_endpoint, ifindex) == 0, "ifindex");
_Static_assert(__builtin_offsetof(struct kinesin_endpoint, id) == 4, "id");
_Static_assert(__builtin_offsetof(struct kinesin_endpoint, flags) == 6, "flags");
_Static_assert(__builtin_offsetof(struct kinesin_endpoint, identity) == 8, "identity");
_Static_assert(__builtin_offsetof(struct kinesin_endpoint, policy_generation) == 12, "policy_generation");
_Static_assert(__builtin_offsetof(struct kinesin_endpoint, eth) == 16, "eth");
_Static_assert(__builtin_offsetof(struct kinesin_endpoint, parent_ifindex) == 28, "parent_ifindex");
_Static_assert(__builtin_offsetof(struct kinesin_endpoint, netns_cookie) == 32, "netns_cookie");

struct kinesin_device {
	__u32 addr6[4];
	__u32 addr4;
	__u32 identity;
	__u16 id;
	__u16 flags;
	__u32 eth[3];
	__u32 policy_generation;
	__u32 pad;
	__u64 netns_cookie;
};
_Static_assert(sizeof(struct kinesin_device) == 56, "size");
_Static_assert(__builtin_offsetof(struct kinesin_device, addr6) == 0, "addr6");
_Static_assert(__builtin_offsetof(struct kinesin_device, addr4) == 16, "addr4");
_Static_assert(__builtin_offsetof(struct kinesin_device, identity) == 20, "identity");
_Static_assert(__builtin_offsetof(struct kinesin_device, id) == 24, "id");
_Static_assert(__builtin_offsetof(struct kinesin_device, flags) == 26, "flags");
_Static_assert(__builtin_offsetof(struct kinesin_device, eth) == 28, "eth");
_Static_assert(__builtin_offsetof(struct kinesin_device, policy_generation) == 40, "policy_generation");
_Static_assert(__builtin_offsetof(struct kinesin_device, pad) == 44, "pad");
_Static_assert(__builtin_offsetof(struct kinesin_device, netns_cookie) == 48, "netns_cookie");

struct kinesin_ipcache_key {
	__u8 family[4];
	__u32 addr[4];
};
_Static_assert(sizeof(struct kinesin_ipcache_key) == 20, "size");
_Static_assert(__builtin_offsetof(struct kinesin_ipcache_key, family) == 0, "family");
_Static_assert(__builtin_offsetof(struct kinesin_ipcache_key, addr) == 4, "addr");

struct kinesin_ipcache {
	__u32 identity;
	__u32 node[4];
	__u8 node_family;
	__u8 carrier;
	__u16 flags;
	__u8 key;
	__u8 pad;
	__u16 mtu;
};
_Static_assert(sizeof(struct kinesin_ipcache) == 28, "size");
_Static_assert(__builtin_offsetof(struct kinesin_ipcache, identity) == 0, "identity");
_Static_assert(__builtin_offsetof(struct kinesin_ipcache, node) == 4, "node");
_Static_assert(__builtin_offsetof(struct kinesin_ipcache, node_family) == 20, "node_family");
_Static_assert(__builtin_offsetof(struct kinesin_ipcache, carrier) == 21, "carrier");
_Static_assert(__builtin_offsetof(struct kinesin_ipcache, flags) == 22, "flags");
_Static_assert(__builtin_offsetof(struct kinesin_ipcache, key) == 24, "key");
_Static_assert(__builtin_offsetof(struct kinesin_ipcache, pad) == 25, "pad");
_Static_assert(__builtin_offsetof(struct kinesin_ipcache, mtu) == 26, "mtu");

struct kinesin_metric {
	__u64 packets;
	__u64 bytes;
};
_Static_assert(sizeof(struct kinesin_metric) == 16, "size");
_Static_assert(__builtin_offsetof(struct kinesin_metric, packets) == 0, "packets");
_Static_assert(__builtin_offsetof(struct kinesin_metric, bytes) == 8, "bytes");

struct kinesin_drop_event {
	__u64 time;
	__u8 kind;
	__u8 reason;
	__u8 observation;
	__u8 family;
	__u32 ifindex;
	__u16 endpoint;
	__u8 protocol;
	__u8 ct_state;
	__u32 length;
	__u32 source_identity;
	__u32 destination_identity;
	__u32 rule_cookie;
	__u16 sport_be;
	__u16 dport_be;
	__u32 saddr[4];
	__u32 daddr[4];
	__u32 original_daddr[4];
	__u16 original_dport_be;
	__u16 pad;
	__u32 pad2;
};
_Static_assert(sizeof(struct kinesin_drop_event) == 96, "size");
_Static_assert(__builtin_offsetof(struct kinesin_drop_event, time) == 0, "time");
_Static_assert(__builtin_offsetof(struct kinesin_drop_event, kind) == 8, "kind");
_Static_assert(__builtin_offsetof(struct kinesin_drop_event, reason) == 9, "reason");
_Static_assert(__builtin_offsetof(struct kinesin_drop_event, observation) == 10, "observation");
_Static_assert(__builtin_offsetof(struct kinesin_drop_event, family) == 11, "family");
_Static_assert(__builtin_offsetof(struct kinesin_drop_event, ifindex) == 12, "ifindex");
_Static_assert(__builtin_offsetof(struct kinesin_drop_event, endpoint) == 16, "endpoint");
_Static_assert(__builtin_offsetof(struct kinesin_drop_event, protocol) == 18, "protocol");
_Static_assert(__builtin_offsetof(struct kinesin_drop_event, ct_state) == 19, "ct_state");
_Static_assert(__builtin_offsetof(struct kinesin_drop_event, length) == 20, "length");
_Static_assert(__builtin_offsetof(struct kinesin_drop_event, source_identity) == 24, "source_identity");
_Static_assert(__builtin_offsetof(struct kinesin_drop_event, destination_identity) == 28, "destination_identity");
_Static_assert(__builtin_offsetof(struct kinesin_drop_event, rule_cookie) == 32, "rule_cookie");
_Static_assert(__builtin_offsetof(struct kinesin_drop_event, sport_be) == 36, "sport_be");
_Static_assert(__builtin_offsetof(struct kinesin_drop_event, dport_be) == 38, "dport_be");
_Static_assert(__builtin_offsetof(struct kinesin_drop_event, saddr) == 40, "saddr");
_Static_assert(__builtin_offsetof(struct kinesin_drop_event, daddr) == 56, "daddr");
_Static_assert(__builtin_offsetof(struct kinesin_drop_event, original_daddr) == 72, "original_daddr");
_Static_assert(__builtin_offsetof(struct kinesin_drop_event, original_dport_be) == 88, "original_dport_be");
_Static_assert(__builtin_offsetof(struct kinesin_drop_event, pad) == 90, "pad");
_Static_assert(__builtin_offsetof(struct kinesin_drop_event, pad2) == 92, "pad2");

#endif /* KINESIN_ABI_H */
