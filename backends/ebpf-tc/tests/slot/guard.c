// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * A slot program as a third party would write it: an egress policy that denies UDP to one port and counts what it sees.
 *
 * It is compiled against the emitted header alone and loaded by libbpf, not by the chassis' own loader.
 */
#include <linux/bpf.h>
#include "kinesin_abi.h"

#define SEC(name) __attribute__((section(name), used))
#define __uint(name, value) int(*name)[value]
#define __type(name, type) typeof(type) *name

static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)BPF_FUNC_map_lookup_elem;
static long (*bpf_tail_call)(void *ctx, void *array, __u32 index) = (void *)BPF_FUNC_tail_call;

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct kinesin_packet_state);
} KIN_STATE SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, KINESIN_CONTINUATIONS);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} KIN_CONT SEC(".maps");

/* Packets seen: of both families together. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} SEEN SEC(".maps");

/* Set before loading, network order. */
volatile const __u16 denied_port = 0;

SEC("tc")
int guard(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct kinesin_packet_state *state = bpf_map_lookup_elem(&KIN_STATE, &zero);
	__u64 *seen = bpf_map_lookup_elem(&SEEN, &zero);

	if (!state || state->version != KINESIN_STATE_VERSION || state->stage != KINESIN_STAGE_EGRESS_POLICY)
		return 2; /* TC_ACT_SHOT */
	if (seen)
		__sync_fetch_and_add(seen, 1);
	if (state->protocol == 17 && state->dport_be == denied_port) {
		state->reason = KINESIN_DROP_POLICY_DENIED;
		bpf_tail_call(skb, &KIN_CONT, KINESIN_CONT_DROP);
	}
	bpf_tail_call(skb, &KIN_CONT, KINESIN_CONT_NEXT);
	return 2;
}

char _license[] SEC("license") = "GPL";
