/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Kinesin's records for slot programs. Generated from datapath/abi; do not edit.
 * Regenerate: KINESIN_WRITE_HEADER=1 cargo test -p kinesin-abi --features user header */
#ifndef KINESIN_ABI_H
#define KINESIN_ABI_H

#include <linux/types.h>

#define KIN_MAP_SLOTS "KIN_SLOTS"
#define KIN_MAP_CONT "KIN_CONT"
#define KIN_MAP_STATE "KIN_STATE"
#define KIN_MAP_ENDPOINTS "KIN_ENDPOINTS"
#define KIN_MAP_IPCACHE "KIN_IPCACHE"
#define KIN_LAYOUT_VERSION 1

#define KIN_FAMILY_DEVICE 0
#define KIN_FAMILY_V4 1
#define KIN_FAMILY_V6 2

#define KIN_IDENTITY_UNKNOWN 0
#define KIN_IDENTITY_HOST 1
#define KIN_IDENTITY_WORLD 2
#define KIN_IDENTITY_HEALTH 4
#define KIN_IDENTITY_INIT 5
#define KIN_IDENTITY_REMOTE_NODE 6
#define KIN_IDENTITY_WORLD_V4 9
#define KIN_IDENTITY_WORLD_V6 10

#define KIN_CARRIER_NONE 0
#define KIN_CARRIER_LOCAL 1
#define KIN_CARRIER_NATIVE 2
#define KIN_CARRIER_VXLAN 3
#define KIN_CARRIER_GENEVE 4

#define KIN_STAGE_LB 0
#define KIN_STAGE_EGRESS_POLICY 1
#define KIN_STAGE_ROUTE 2
#define KIN_STAGE_ENCRYPT 3
#define KIN_STAGE_REV_NAT 4
#define KIN_STAGE_HOST_FW_IN 5
#define KIN_STAGE_INGRESS_POLICY 6
#define KIN_STAGE_PROXY 7
#define KIN_STAGE_DELIVER 8
#define KIN_STAGE_HOST_FW_OUT 9
#define KIN_STAGE_MASQUERADE 10
#define KIN_STAGES 11
#define KIN_CONTINUE_NEXT 0
#define KIN_CONTINUE_DELIVER 1
#define KIN_CONTINUE_DROP 2
#define KIN_CONTINUATIONS 3
#define KIN_ENTRY_FROM_CONTAINER 0
#define KIN_ENTRY_TO_CONTAINER 1
#define KIN_ENTRY_FROM_NETDEV 2
#define KIN_ENTRY_FROM_HOST 3

#define KIN_STATE_VERSION 1
#define KIN_STATE_FRAGMENT 1
#define KIN_STATE_LATER_FRAGMENT 2
#define KIN_STATE_DONT_FRAGMENT 4
#define KIN_STATE_ICMP_ERROR 8
#define KIN_STATE_LINK_BROADCAST 16
#define KIN_VERDICT_NONE 0
#define KIN_VERDICT_DELIVER 1
#define KIN_VERDICT_CARRY 2
#define KIN_VERDICT_TO_STACK 3
#define KIN_VERDICT_PROXY 4
#define KIN_VERDICT_ANSWER 5
#define KIN_VERDICT_DROP 6
#define KIN_VERDICT_PASS 7

#define KIN_ENDPOINT_READY 1
#define KIN_ENDPOINT_HOST 2
#define KIN_ENDPOINT_HEALTH 4

#define KIN_IPCACHE_STATIC_BITS 32
#define KIN_IPCACHE_NODE 1

#define KIN_POLICY_STATIC_BITS 72
#define KIN_POLICY_DENY 1
#define KIN_POLICY_AUDIT 2

#define KIN_CONNTRACK_UNKNOWN 0
#define KIN_CONNTRACK_NEW 1
#define KIN_CONNTRACK_ESTABLISHED 2
#define KIN_CONNTRACK_REPLY 3
#define KIN_CONNTRACK_RELATED 4
#define KIN_CONNTRACK_RECEIVED_CLOSING 1
#define KIN_CONNTRACK_SENT_CLOSING 2
#define KIN_CONNTRACK_SEEN_NON_SYN 4
#define KIN_CONNTRACK_NODE_PORT 8
#define KIN_CONNTRACK_PROXY 16
#define KIN_CONNTRACK_DSR 32
#define KIN_CONNTRACK_LOOPBACK 64

#define KIN_DIRECTION_INGRESS 1
#define KIN_DIRECTION_EGRESS 2
#define KIN_METRICS_ENTRIES 1024

#define KIN_EVENT_VERSION 1
#define KIN_EVENT_CAPTURE_BYTES 104
#define KIN_EVENT_DROP 1
#define KIN_EVENT_TRACE 4
#define KIN_EVENT_POLICY_VERDICT 5
#define KIN_EVENT_ANSWERED 1
#define KIN_EVENT_RATE_LIMITED 2

#define KIN_MARK_MAGIC_MASK 3840
#define KIN_MARK_TO_PROXY 512
#define KIN_MARK_SNAT_DONE 768
#define KIN_MARK_OVERLAY 1024
#define KIN_MARK_FROM_INGRESS_PROXY 2560
#define KIN_MARK_FROM_EGRESS_PROXY 2816
#define KIN_MARK_HOST 3072
#define KIN_MARK_IDENTITY 3840

#define KIN_CONFIG_IPV4 1
#define KIN_CONFIG_IPV6 2
#define KIN_CONFIG_EVENTS 4
#define KIN_CONFIG_RECORD_STATE 8

#define KIN_ENDPOINTS_ENTRIES 65536
#define KIN_IPCACHE_ENTRIES 512000
#define KIN_EVENTS_BYTES 1048576

#define KIN_REASON_FORWARDED 0
#define KIN_REASON_INVALID_SOURCE_MAC 130
#define KIN_REASON_INVALID_DESTINATION_MAC 131
#define KIN_REASON_INVALID_SOURCE_IP 132
#define KIN_REASON_POLICY_DENIED 133
#define KIN_REASON_INVALID_PACKET 134
#define KIN_REASON_CT_INVALID_HEADER 135
#define KIN_REASON_FRAGMENTATION_NEEDED 136
#define KIN_REASON_CT_UNKNOWN_L4 137
#define KIN_REASON_CT_CANNOT_CREATE 138
#define KIN_REASON_UNSUPPORTED_L3 139
#define KIN_REASON_MISSED_TAIL_CALL 140
#define KIN_REASON_WRITE_ERROR 141
#define KIN_REASON_UNKNOWN_L4 142
#define KIN_REASON_UNKNOWN_ICMP4_CODE 143
#define KIN_REASON_UNKNOWN_ICMP4_TYPE 144
#define KIN_REASON_UNKNOWN_ICMP6_CODE 145
#define KIN_REASON_UNKNOWN_ICMP6_TYPE 146
#define KIN_REASON_NO_TUNNEL_KEY 147
#define KIN_REASON_NO_TUNNEL_OPTION 148
#define KIN_REASON_INVALID_GENEVE 149
#define KIN_REASON_UNKNOWN_L3_TARGET 150
#define KIN_REASON_UNROUTABLE 151
#define KIN_REASON_NO_LOCAL_CONTAINER 152
#define KIN_REASON_CHECKSUM_L3 153
#define KIN_REASON_CHECKSUM_L4 154
#define KIN_REASON_CT_INSERT_FAILED 155
#define KIN_REASON_IPV6_EXTENSION 156
#define KIN_REASON_FRAGMENT_UNSUPPORTED 157
#define KIN_REASON_NO_BACKEND 158
#define KIN_REASON_NO_ENCAP_ENDPOINT 160
#define KIN_REASON_NAT46_OFF 161
#define KIN_REASON_EDT_HORIZON 162
#define KIN_REASON_CT_UNKNOWN_STATE 163
#define KIN_REASON_HOST_UNREACHABLE 164
#define KIN_REASON_NO_POLICY_CONFIG 165
#define KIN_REASON_UNSUPPORTED_L2 166
#define KIN_REASON_NAT_NO_MAPPING 167
#define KIN_REASON_NAT_UNSUPPORTED 168
#define KIN_REASON_FIB_FAILED 169
#define KIN_REASON_ENCAP_PROHIBITED 170
#define KIN_REASON_INVALID_IDENTITY 171
#define KIN_REASON_UNKNOWN_SENDER 172
#define KIN_REASON_NAT_NOT_NEEDED 173
#define KIN_REASON_IS_CLUSTER_IP 174
#define KIN_REASON_FRAGMENT_NOT_FOUND 175
#define KIN_REASON_FORBIDDEN_ICMP6 176
#define KIN_REASON_NOT_IN_SOURCE_RANGE 177
#define KIN_REASON_SOCKET_LOOKUP 178
#define KIN_REASON_SOCKET_ASSIGN 179
#define KIN_REASON_PROXY_UNKNOWN_PROTOCOL 180
#define KIN_REASON_POLICY_DENY_RULE 181
#define KIN_REASON_VLAN_FILTERED 182
#define KIN_REASON_INVALID_VNI 183
#define KIN_REASON_INVALID_TC_BUFFER 184
#define KIN_REASON_NO_SID 185
#define KIN_REASON_MISSING_SRV6_STATE 186
#define KIN_REASON_NAT46_FAILED 187
#define KIN_REASON_NAT64_FAILED 188
#define KIN_REASON_AUTH_REQUIRED 189
#define KIN_REASON_NO_CT_MAP 190
#define KIN_REASON_NO_NAT_MAP 191
#define KIN_REASON_INVALID_CLUSTER 192
#define KIN_REASON_DSR_ENCAP_UNSUPPORTED 193
#define KIN_REASON_NO_EGRESS_GATEWAY 194
#define KIN_REASON_UNENCRYPTED 195
#define KIN_REASON_TTL_EXCEEDED 196
#define KIN_REASON_NO_NODE_ID 197
#define KIN_REASON_RATE_LIMITED 198
#define KIN_REASON_IGMP_HANDLED 199
#define KIN_REASON_IGMP_SUBSCRIBED 200
#define KIN_REASON_MULTICAST_HANDLED 201
#define KIN_REASON_HOST_NOT_READY 202
#define KIN_REASON_ENDPOINT_NOT_READY 203
#define KIN_REASON_NO_EGRESS_IP 204
#define KIN_REASON_PUNT_PROXY 205

struct kin_tuple {
	__u32 source[4];
	__u32 destination[4];
	__u16 source_port_be;
	__u16 destination_port_be;
	__u8 protocol;
	__u8 family;
	__u8 flags;
	__u8 pad;
};
_Static_assert(sizeof(struct kin_tuple) == 40, "tuple");
_Static_assert(__builtin_offsetof(struct kin_tuple, source) == 0, "tuple.source");
_Static_assert(__builtin_offsetof(struct kin_tuple, destination) == 16, "tuple.destination");
_Static_assert(__builtin_offsetof(struct kin_tuple, source_port_be) == 32, "tuple.source_port_be");
_Static_assert(__builtin_offsetof(struct kin_tuple, destination_port_be) == 34, "tuple.destination_port_be");
_Static_assert(__builtin_offsetof(struct kin_tuple, protocol) == 36, "tuple.protocol");
_Static_assert(__builtin_offsetof(struct kin_tuple, family) == 37, "tuple.family");
_Static_assert(__builtin_offsetof(struct kin_tuple, flags) == 38, "tuple.flags");
_Static_assert(__builtin_offsetof(struct kin_tuple, pad) == 39, "tuple.pad");

struct kin_packet_state {
	__u16 version;
	__u8 entry;
	__u8 stage;
	__u32 flags;
	__u16 l3_offset;
	__u16 l4_offset;
	__u32 l3_length;
	struct kin_tuple tuple;
	__u8 verdict;
	__u8 carrier;
	__u8 conntrack_state;
	__u8 reason;
	__u32 ifindex;
	__u32 mtu_bytes;
	__u32 mark;
	__u32 source_identity;
	__u32 target_identity;
	__u16 source_endpoint;
	__u16 target_endpoint;
	__u32 rule_cookie;
	__u64 target_mac;
	__u64 source_mac;
	__u32 node[4];
	__u8 node_family;
	__u8 pad;
	__u16 proxy_port_be;
	__u16 reverse_nat_be;
	__u16 cluster_id;
	__u32 backend;
	__u32 scratch[3];
};
_Static_assert(sizeof(struct kin_packet_state) == 144, "packet_state");
_Static_assert(__builtin_offsetof(struct kin_packet_state, version) == 0, "packet_state.version");
_Static_assert(__builtin_offsetof(struct kin_packet_state, entry) == 2, "packet_state.entry");
_Static_assert(__builtin_offsetof(struct kin_packet_state, stage) == 3, "packet_state.stage");
_Static_assert(__builtin_offsetof(struct kin_packet_state, flags) == 4, "packet_state.flags");
_Static_assert(__builtin_offsetof(struct kin_packet_state, l3_offset) == 8, "packet_state.l3_offset");
_Static_assert(__builtin_offsetof(struct kin_packet_state, l4_offset) == 10, "packet_state.l4_offset");
_Static_assert(__builtin_offsetof(struct kin_packet_state, l3_length) == 12, "packet_state.l3_length");
_Static_assert(__builtin_offsetof(struct kin_packet_state, tuple) == 16, "packet_state.tuple");
_Static_assert(__builtin_offsetof(struct kin_packet_state, verdict) == 56, "packet_state.verdict");
_Static_assert(__builtin_offsetof(struct kin_packet_state, carrier) == 57, "packet_state.carrier");
_Static_assert(__builtin_offsetof(struct kin_packet_state, conntrack_state) == 58, "packet_state.conntrack_state");
_Static_assert(__builtin_offsetof(struct kin_packet_state, reason) == 59, "packet_state.reason");
_Static_assert(__builtin_offsetof(struct kin_packet_state, ifindex) == 60, "packet_state.ifindex");
_Static_assert(__builtin_offsetof(struct kin_packet_state, mtu_bytes) == 64, "packet_state.mtu_bytes");
_Static_assert(__builtin_offsetof(struct kin_packet_state, mark) == 68, "packet_state.mark");
_Static_assert(__builtin_offsetof(struct kin_packet_state, source_identity) == 72, "packet_state.source_identity");
_Static_assert(__builtin_offsetof(struct kin_packet_state, target_identity) == 76, "packet_state.target_identity");
_Static_assert(__builtin_offsetof(struct kin_packet_state, source_endpoint) == 80, "packet_state.source_endpoint");
_Static_assert(__builtin_offsetof(struct kin_packet_state, target_endpoint) == 82, "packet_state.target_endpoint");
_Static_assert(__builtin_offsetof(struct kin_packet_state, rule_cookie) == 84, "packet_state.rule_cookie");
_Static_assert(__builtin_offsetof(struct kin_packet_state, target_mac) == 88, "packet_state.target_mac");
_Static_assert(__builtin_offsetof(struct kin_packet_state, source_mac) == 96, "packet_state.source_mac");
_Static_assert(__builtin_offsetof(struct kin_packet_state, node) == 104, "packet_state.node");
_Static_assert(__builtin_offsetof(struct kin_packet_state, node_family) == 120, "packet_state.node_family");
_Static_assert(__builtin_offsetof(struct kin_packet_state, pad) == 121, "packet_state.pad");
_Static_assert(__builtin_offsetof(struct kin_packet_state, proxy_port_be) == 122, "packet_state.proxy_port_be");
_Static_assert(__builtin_offsetof(struct kin_packet_state, reverse_nat_be) == 124, "packet_state.reverse_nat_be");
_Static_assert(__builtin_offsetof(struct kin_packet_state, cluster_id) == 126, "packet_state.cluster_id");
_Static_assert(__builtin_offsetof(struct kin_packet_state, backend) == 128, "packet_state.backend");
_Static_assert(__builtin_offsetof(struct kin_packet_state, scratch) == 132, "packet_state.scratch");

struct kin_endpoint_key {
	__u32 address[4];
	__u8 family;
	__u8 pad[3];
};
_Static_assert(sizeof(struct kin_endpoint_key) == 20, "endpoint_key");
_Static_assert(__builtin_offsetof(struct kin_endpoint_key, address) == 0, "endpoint_key.address");
_Static_assert(__builtin_offsetof(struct kin_endpoint_key, family) == 16, "endpoint_key.family");
_Static_assert(__builtin_offsetof(struct kin_endpoint_key, pad) == 17, "endpoint_key.pad");

struct kin_endpoint_value {
	__u32 ifindex;
	__u32 flags;
	__u16 id;
	__u16 pad;
	__u32 identity;
	__u64 mac;
	__u64 node_mac;
	__u64 netns_cookie;
	__u32 policy_generation;
	__u32 mtu_bytes;
	__u32 reserved[4];
};
_Static_assert(sizeof(struct kin_endpoint_value) == 64, "endpoint_value");
_Static_assert(__builtin_offsetof(struct kin_endpoint_value, ifindex) == 0, "endpoint_value.ifindex");
_Static_assert(__builtin_offsetof(struct kin_endpoint_value, flags) == 4, "endpoint_value.flags");
_Static_assert(__builtin_offsetof(struct kin_endpoint_value, id) == 8, "endpoint_value.id");
_Static_assert(__builtin_offsetof(struct kin_endpoint_value, pad) == 10, "endpoint_value.pad");
_Static_assert(__builtin_offsetof(struct kin_endpoint_value, identity) == 12, "endpoint_value.identity");
_Static_assert(__builtin_offsetof(struct kin_endpoint_value, mac) == 16, "endpoint_value.mac");
_Static_assert(__builtin_offsetof(struct kin_endpoint_value, node_mac) == 24, "endpoint_value.node_mac");
_Static_assert(__builtin_offsetof(struct kin_endpoint_value, netns_cookie) == 32, "endpoint_value.netns_cookie");
_Static_assert(__builtin_offsetof(struct kin_endpoint_value, policy_generation) == 40, "endpoint_value.policy_generation");
_Static_assert(__builtin_offsetof(struct kin_endpoint_value, mtu_bytes) == 44, "endpoint_value.mtu_bytes");
_Static_assert(__builtin_offsetof(struct kin_endpoint_value, reserved) == 48, "endpoint_value.reserved");

struct kin_ipcache_key {
	__u32 prefix_length;
	__u16 cluster_id;
	__u8 pad;
	__u8 family;
	__u32 address[4];
};
_Static_assert(sizeof(struct kin_ipcache_key) == 24, "ipcache_key");
_Static_assert(__builtin_offsetof(struct kin_ipcache_key, prefix_length) == 0, "ipcache_key.prefix_length");
_Static_assert(__builtin_offsetof(struct kin_ipcache_key, cluster_id) == 4, "ipcache_key.cluster_id");
_Static_assert(__builtin_offsetof(struct kin_ipcache_key, pad) == 6, "ipcache_key.pad");
_Static_assert(__builtin_offsetof(struct kin_ipcache_key, family) == 7, "ipcache_key.family");
_Static_assert(__builtin_offsetof(struct kin_ipcache_key, address) == 8, "ipcache_key.address");

struct kin_ipcache_value {
	__u32 identity;
	__u32 node[4];
	__u8 node_family;
	__u8 carrier;
	__u8 key;
	__u8 flags;
	__u32 ifindex;
	__u32 mtu_bytes;
	__u32 reserved;
};
_Static_assert(sizeof(struct kin_ipcache_value) == 36, "ipcache_value");
_Static_assert(__builtin_offsetof(struct kin_ipcache_value, identity) == 0, "ipcache_value.identity");
_Static_assert(__builtin_offsetof(struct kin_ipcache_value, node) == 4, "ipcache_value.node");
_Static_assert(__builtin_offsetof(struct kin_ipcache_value, node_family) == 20, "ipcache_value.node_family");
_Static_assert(__builtin_offsetof(struct kin_ipcache_value, carrier) == 21, "ipcache_value.carrier");
_Static_assert(__builtin_offsetof(struct kin_ipcache_value, key) == 22, "ipcache_value.key");
_Static_assert(__builtin_offsetof(struct kin_ipcache_value, flags) == 23, "ipcache_value.flags");
_Static_assert(__builtin_offsetof(struct kin_ipcache_value, ifindex) == 24, "ipcache_value.ifindex");
_Static_assert(__builtin_offsetof(struct kin_ipcache_value, mtu_bytes) == 28, "ipcache_value.mtu_bytes");
_Static_assert(__builtin_offsetof(struct kin_ipcache_value, reserved) == 32, "ipcache_value.reserved");

struct kin_policy_key {
	__u32 prefix_length;
	__u32 endpoint;
	__u32 identity;
	__u8 direction;
	__u8 protocol;
	__u16 destination_port_be;
};
_Static_assert(sizeof(struct kin_policy_key) == 16, "policy_key");
_Static_assert(__builtin_offsetof(struct kin_policy_key, prefix_length) == 0, "policy_key.prefix_length");
_Static_assert(__builtin_offsetof(struct kin_policy_key, endpoint) == 4, "policy_key.endpoint");
_Static_assert(__builtin_offsetof(struct kin_policy_key, identity) == 8, "policy_key.identity");
_Static_assert(__builtin_offsetof(struct kin_policy_key, direction) == 12, "policy_key.direction");
_Static_assert(__builtin_offsetof(struct kin_policy_key, protocol) == 13, "policy_key.protocol");
_Static_assert(__builtin_offsetof(struct kin_policy_key, destination_port_be) == 14, "policy_key.destination_port_be");

struct kin_policy_value {
	__u8 flags;
	__u8 auth;
	__u16 proxy_port_be;
	__u32 precedence;
	__u32 rule_cookie;
	__u32 reserved;
};
_Static_assert(sizeof(struct kin_policy_value) == 16, "policy_value");
_Static_assert(__builtin_offsetof(struct kin_policy_value, flags) == 0, "policy_value.flags");
_Static_assert(__builtin_offsetof(struct kin_policy_value, auth) == 1, "policy_value.auth");
_Static_assert(__builtin_offsetof(struct kin_policy_value, proxy_port_be) == 2, "policy_value.proxy_port_be");
_Static_assert(__builtin_offsetof(struct kin_policy_value, precedence) == 4, "policy_value.precedence");
_Static_assert(__builtin_offsetof(struct kin_policy_value, rule_cookie) == 8, "policy_value.rule_cookie");
_Static_assert(__builtin_offsetof(struct kin_policy_value, reserved) == 12, "policy_value.reserved");

struct kin_conntrack_value {
	__u64 packets;
	__u64 bytes;
	__u32 expires_seconds;
	__u32 source_identity;
	__u32 backend;
	__u32 rule_cookie;
	__u32 last_sent_seconds;
	__u32 last_received_seconds;
	__u16 reverse_nat_be;
	__u16 flags;
	__u8 sent_tcp_flags;
	__u8 received_tcp_flags;
	__u16 pad;
	__u32 reserved[4];
};
_Static_assert(sizeof(struct kin_conntrack_value) == 64, "conntrack_value");
_Static_assert(__builtin_offsetof(struct kin_conntrack_value, packets) == 0, "conntrack_value.packets");
_Static_assert(__builtin_offsetof(struct kin_conntrack_value, bytes) == 8, "conntrack_value.bytes");
_Static_assert(__builtin_offsetof(struct kin_conntrack_value, expires_seconds) == 16, "conntrack_value.expires_seconds");
_Static_assert(__builtin_offsetof(struct kin_conntrack_value, source_identity) == 20, "conntrack_value.source_identity");
_Static_assert(__builtin_offsetof(struct kin_conntrack_value, backend) == 24, "conntrack_value.backend");
_Static_assert(__builtin_offsetof(struct kin_conntrack_value, rule_cookie) == 28, "conntrack_value.rule_cookie");
_Static_assert(__builtin_offsetof(struct kin_conntrack_value, last_sent_seconds) == 32, "conntrack_value.last_sent_seconds");
_Static_assert(__builtin_offsetof(struct kin_conntrack_value, last_received_seconds) == 36, "conntrack_value.last_received_seconds");
_Static_assert(__builtin_offsetof(struct kin_conntrack_value, reverse_nat_be) == 40, "conntrack_value.reverse_nat_be");
_Static_assert(__builtin_offsetof(struct kin_conntrack_value, flags) == 42, "conntrack_value.flags");
_Static_assert(__builtin_offsetof(struct kin_conntrack_value, sent_tcp_flags) == 44, "conntrack_value.sent_tcp_flags");
_Static_assert(__builtin_offsetof(struct kin_conntrack_value, received_tcp_flags) == 45, "conntrack_value.received_tcp_flags");
_Static_assert(__builtin_offsetof(struct kin_conntrack_value, pad) == 46, "conntrack_value.pad");
_Static_assert(__builtin_offsetof(struct kin_conntrack_value, reserved) == 48, "conntrack_value.reserved");

struct kin_metrics_value {
	__u64 packets;
	__u64 bytes;
};
_Static_assert(sizeof(struct kin_metrics_value) == 16, "metrics_value");
_Static_assert(__builtin_offsetof(struct kin_metrics_value, packets) == 0, "metrics_value.packets");
_Static_assert(__builtin_offsetof(struct kin_metrics_value, bytes) == 8, "metrics_value.bytes");

struct kin_bucket {
	__u64 filled_ns;
	__u32 tokens;
	__u32 pad;
};
_Static_assert(sizeof(struct kin_bucket) == 16, "bucket");
_Static_assert(__builtin_offsetof(struct kin_bucket, filled_ns) == 0, "bucket.filled_ns");
_Static_assert(__builtin_offsetof(struct kin_bucket, tokens) == 8, "bucket.tokens");
_Static_assert(__builtin_offsetof(struct kin_bucket, pad) == 12, "bucket.pad");

struct kin_event {
	__u8 kind;
	__u8 reason;
	__u8 observation;
	__u8 direction;
	__u16 source_endpoint;
	__u16 target_endpoint;
	__u64 time_ns;
	__u32 hash;
	__u32 length;
	__u16 captured;
	__u16 version;
	__u32 ifindex;
	__u32 source_identity;
	__u32 target_identity;
	__u32 rule_cookie;
	__u8 conntrack_state;
	__u8 flags;
	__u8 extended_error;
	__u8 pad;
	struct kin_tuple original;
	__u32 capture[26];
};
_Static_assert(sizeof(struct kin_event) == 192, "event");
_Static_assert(__builtin_offsetof(struct kin_event, kind) == 0, "event.kind");
_Static_assert(__builtin_offsetof(struct kin_event, reason) == 1, "event.reason");
_Static_assert(__builtin_offsetof(struct kin_event, observation) == 2, "event.observation");
_Static_assert(__builtin_offsetof(struct kin_event, direction) == 3, "event.direction");
_Static_assert(__builtin_offsetof(struct kin_event, source_endpoint) == 4, "event.source_endpoint");
_Static_assert(__builtin_offsetof(struct kin_event, target_endpoint) == 6, "event.target_endpoint");
_Static_assert(__builtin_offsetof(struct kin_event, time_ns) == 8, "event.time_ns");
_Static_assert(__builtin_offsetof(struct kin_event, hash) == 16, "event.hash");
_Static_assert(__builtin_offsetof(struct kin_event, length) == 20, "event.length");
_Static_assert(__builtin_offsetof(struct kin_event, captured) == 24, "event.captured");
_Static_assert(__builtin_offsetof(struct kin_event, version) == 26, "event.version");
_Static_assert(__builtin_offsetof(struct kin_event, ifindex) == 28, "event.ifindex");
_Static_assert(__builtin_offsetof(struct kin_event, source_identity) == 32, "event.source_identity");
_Static_assert(__builtin_offsetof(struct kin_event, target_identity) == 36, "event.target_identity");
_Static_assert(__builtin_offsetof(struct kin_event, rule_cookie) == 40, "event.rule_cookie");
_Static_assert(__builtin_offsetof(struct kin_event, conntrack_state) == 44, "event.conntrack_state");
_Static_assert(__builtin_offsetof(struct kin_event, flags) == 45, "event.flags");
_Static_assert(__builtin_offsetof(struct kin_event, extended_error) == 46, "event.extended_error");
_Static_assert(__builtin_offsetof(struct kin_event, pad) == 47, "event.pad");
_Static_assert(__builtin_offsetof(struct kin_event, original) == 48, "event.original");
_Static_assert(__builtin_offsetof(struct kin_event, capture) == 88, "event.capture");

struct kin_datapath_config {
	__u32 layout;
	__u32 flags;
	__u32 slot_mask;
	__u32 host_ifindex;
	__u32 net_ifindex;
	__u32 uplink_ifindex;
	__u64 host_mac;
	__u64 netns_cookie;
	__u32 router_v6[4];
	__u32 router_v4;
	__u32 world_v4_identity;
	__u32 world_v6_identity;
	__u32 route_mtu_bytes;
	__u32 device_mtu_bytes;
	__u16 tunnel_ports_be[4];
	__u32 icmp_rate_per_second;
	__u32 icmp_burst;
	__u32 pad;
	__u32 reserved[16];
};
_Static_assert(sizeof(struct kin_datapath_config) == 160, "datapath_config");
_Static_assert(__builtin_offsetof(struct kin_datapath_config, layout) == 0, "datapath_config.layout");
_Static_assert(__builtin_offsetof(struct kin_datapath_config, flags) == 4, "datapath_config.flags");
_Static_assert(__builtin_offsetof(struct kin_datapath_config, slot_mask) == 8, "datapath_config.slot_mask");
_Static_assert(__builtin_offsetof(struct kin_datapath_config, host_ifindex) == 12, "datapath_config.host_ifindex");
_Static_assert(__builtin_offsetof(struct kin_datapath_config, net_ifindex) == 16, "datapath_config.net_ifindex");
_Static_assert(__builtin_offsetof(struct kin_datapath_config, uplink_ifindex) == 20, "datapath_config.uplink_ifindex");
_Static_assert(__builtin_offsetof(struct kin_datapath_config, host_mac) == 24, "datapath_config.host_mac");
_Static_assert(__builtin_offsetof(struct kin_datapath_config, netns_cookie) == 32, "datapath_config.netns_cookie");
_Static_assert(__builtin_offsetof(struct kin_datapath_config, router_v6) == 40, "datapath_config.router_v6");
_Static_assert(__builtin_offsetof(struct kin_datapath_config, router_v4) == 56, "datapath_config.router_v4");
_Static_assert(__builtin_offsetof(struct kin_datapath_config, world_v4_identity) == 60, "datapath_config.world_v4_identity");
_Static_assert(__builtin_offsetof(struct kin_datapath_config, world_v6_identity) == 64, "datapath_config.world_v6_identity");
_Static_assert(__builtin_offsetof(struct kin_datapath_config, route_mtu_bytes) == 68, "datapath_config.route_mtu_bytes");
_Static_assert(__builtin_offsetof(struct kin_datapath_config, device_mtu_bytes) == 72, "datapath_config.device_mtu_bytes");
_Static_assert(__builtin_offsetof(struct kin_datapath_config, tunnel_ports_be) == 76, "datapath_config.tunnel_ports_be");
_Static_assert(__builtin_offsetof(struct kin_datapath_config, icmp_rate_per_second) == 84, "datapath_config.icmp_rate_per_second");
_Static_assert(__builtin_offsetof(struct kin_datapath_config, icmp_burst) == 88, "datapath_config.icmp_burst");
_Static_assert(__builtin_offsetof(struct kin_datapath_config, pad) == 92, "datapath_config.pad");
_Static_assert(__builtin_offsetof(struct kin_datapath_config, reserved) == 96, "datapath_config.reserved");

#endif
