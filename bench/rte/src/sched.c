/*
 * The scheduler rte_sched: a port, subports, pipes with eight queues each, and packets for them.
 *
 * Of a pipe's 16 queues 4 strict ones and the 4 weighted ones are used. Every rate is the port's, so all are kept to and
 * none is reached. RED watches every queue, and drops nothing below half of it.
 */
#include <stddef.h>
#include <stdint.h>
#include <rte_malloc.h>
#include <rte_mbuf.h>
#include <rte_sched.h>
#include "shim.h"

/* Octets per second: 100 Gbit/s. */
#define RATE 12500000000ull
#define BURST 1000000
#define MTU 1522
/* Milliseconds. */
#define PERIOD 10
/* What DPDK's own example takes. */
#define QUEUE_PACKETS 64
#define STRICT 4
/* From one packet to the next, as in a pool with the default room for data: the pool's line, the packet, the data. */
#define STRIDE (RTE_CACHE_LINE_SIZE + sizeof(struct rte_mbuf) + RTE_MBUF_DEFAULT_BUF_SIZE)

/* With so many subports, and pipes in each. */
struct rte_sched_port *rte_shim_sched_new(unsigned int subports, unsigned int pipes)
{
	struct rte_sched_subport_profile_params subport_profile = {
		.tb_rate = RATE, .tb_size = BURST, .tc_period = PERIOD,
	};
	struct rte_sched_pipe_params pipe_profile = {
		.tb_rate = RATE, .tb_size = BURST, .tc_period = PERIOD, .tc_ov_weight = 1, .wrr_weights = { 1, 1, 1, 1 },
	};
	struct rte_sched_subport_params subport = {
		.n_pipes_per_subport_enabled = pipes,
		.pipe_profiles = &pipe_profile,
		.n_pipe_profiles = 1,
		.n_max_pipe_profiles = 1,
	};
	for (int class = 0; class < RTE_SCHED_TRAFFIC_CLASSES_PER_PIPE; class++) {
		int used = class < STRICT || class == RTE_SCHED_TRAFFIC_CLASS_BE;
		subport_profile.tc_rate[class] = RATE;
		/* A class without queues has to be without a rate. */
		pipe_profile.tc_rate[class] = used ? RATE : 0;
		subport.qsize[class] = used ? QUEUE_PACKETS : 0;
	}
	struct rte_sched_cman_params red = { .cman_mode = RTE_SCHED_CMAN_RED };
	for (int class = 0; class < RTE_SCHED_TRAFFIC_CLASSES_PER_PIPE; class++)
		for (int colour = 0; colour < RTE_COLORS; colour++)
			red.red_params[class][colour] = (struct rte_red_params){
				.min_th = QUEUE_PACKETS / 2, .max_th = QUEUE_PACKETS, .maxp_inv = 10, .wq_log2 = 9,
			};
	subport.cman_params = &red;
	struct rte_sched_port_params params = {
		.name = "bench",
		.socket = rte_shim_socket,
		.rate = RATE,
		.mtu = MTU,
		.frame_overhead = RTE_SCHED_FRAME_OVERHEAD_DEFAULT,
		.n_subports_per_port = subports,
		.subport_profiles = &subport_profile,
		.n_subport_profiles = 1,
		.n_max_subport_profiles = 1,
		.n_pipes_per_subport = pipes,
	};
	struct rte_sched_port *port = rte_sched_port_config(&params);
	if (port == NULL)
		return NULL;
	int status = 0;
	for (unsigned int at = 0; status == 0 && at < subports; at++) {
		status = rte_sched_subport_config(port, at, &subport, 0);
		for (unsigned int pipe = 0; status == 0 && pipe < pipes; pipe++)
			status = rte_sched_pipe_config(port, at, pipe, 0);
	}
	if (status == 0)
		return port;
	rte_sched_port_free(port);
	return NULL;
}

/* Packets that are in no pool, and in memory of 2 MiB pages as a pool is. */
void *rte_shim_packets_new(size_t count, unsigned int octets)
{
	char *packets = rte_zmalloc_socket("packets", count * STRIDE, RTE_CACHE_LINE_SIZE, rte_shim_socket);
	for (size_t at = 0; packets != NULL && at < count; at++) {
		struct rte_mbuf *packet = (struct rte_mbuf *)(packets + at * STRIDE);
		packet->buf_addr = packet + 1;
		packet->buf_len = RTE_MBUF_DEFAULT_BUF_SIZE;
		packet->data_off = RTE_PKTMBUF_HEADROOM;
		packet->pkt_len = packet->data_len = octets;
		packet->nb_segs = 1;
		packet->port = RTE_MBUF_PORT_INVALID;
		/* One more than who has it: a packet that is dropped stays, as there is no pool that it could go to. */
		rte_mbuf_refcnt_set(packet, 2);
	}
	return packets;
}

struct rte_mbuf *rte_shim_packet(void *packets, size_t at)
{
	return (struct rte_mbuf *)((char *)packets + at * STRIDE);
}

/* For one of the eight queues of a subport's pipe. */
void rte_shim_packet_bind(struct rte_sched_port *port, struct rte_mbuf *packet, unsigned int subport, unsigned int pipe,
	unsigned int queue)
{
	unsigned int class = queue < STRICT ? queue : RTE_SCHED_TRAFFIC_CLASS_BE;
	unsigned int within = queue < STRICT ? 0 : (queue - STRICT) % RTE_SCHED_BE_QUEUES_PER_PIPE;
	rte_sched_port_pkt_write(port, packet, subport, pipe, class, within, RTE_COLOR_GREEN);
}
