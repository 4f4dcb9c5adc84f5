/* The meters of rte_meter, whose code is in its header: many of one kind, with one profile. */
#include <stddef.h>
#include <stdint.h>
#include <rte_cycles.h>
#include <rte_malloc.h>
#include <rte_meter.h>
#include "shim.h"

/* As dpdk/meter.rs has them. */
enum kind { RFC2697, RFC2698, RFC4115 };

struct meters {
	enum kind kind;
	union {
		struct rte_meter_srtcm_profile rfc2697;
		struct rte_meter_trtcm_profile rfc2698;
		struct rte_meter_trtcm_rfc4115_profile rfc4115;
	} profile;
	/* Where the others would only share the largest one's size, each has its own. */
	union {
		struct rte_meter_srtcm *rfc2697;
		struct rte_meter_trtcm *rfc2698;
		struct rte_meter_trtcm_rfc4115 *rfc4115;
		void *any;
	} at;
};

void rte_shim_meters_free(struct meters *meters)
{
	rte_free(meters->at.any);
	rte_free(meters);
}

/* Rates in octets per second, bursts in octets. */
struct meters *rte_shim_meters_new(int kind, size_t count, uint64_t cir, uint64_t pir, uint64_t cbs, uint64_t pbs)
{
	struct rte_meter_srtcm_params rfc2697 = { .cir = cir, .cbs = cbs, .ebs = pbs };
	struct rte_meter_trtcm_params rfc2698 = { .cir = cir, .pir = pir, .cbs = cbs, .pbs = pbs };
	struct rte_meter_trtcm_rfc4115_params rfc4115 = { .cir = cir, .eir = pir, .cbs = cbs, .ebs = pbs };
	struct meters *meters = rte_zmalloc_socket("meters", sizeof(*meters), RTE_CACHE_LINE_SIZE, rte_shim_socket);
	if (meters == NULL)
		return NULL;
	meters->kind = kind;
	size_t size = kind == RFC2697 ? sizeof(*meters->at.rfc2697)
		: kind == RFC2698 ? sizeof(*meters->at.rfc2698) : sizeof(*meters->at.rfc4115);
	meters->at.any = rte_zmalloc_socket("meters", count * size, RTE_CACHE_LINE_SIZE, rte_shim_socket);
	int status = meters->at.any == NULL ? -1
		: kind == RFC2697 ? rte_meter_srtcm_profile_config(&meters->profile.rfc2697, &rfc2697)
		: kind == RFC2698 ? rte_meter_trtcm_profile_config(&meters->profile.rfc2698, &rfc2698)
		: rte_meter_trtcm_rfc4115_profile_config(&meters->profile.rfc4115, &rfc4115);
	for (size_t at = 0; status == 0 && at < count; at++)
		status = kind == RFC2697 ? rte_meter_srtcm_config(&meters->at.rfc2697[at], &meters->profile.rfc2697)
			: kind == RFC2698 ? rte_meter_trtcm_config(&meters->at.rfc2698[at], &meters->profile.rfc2698)
			: rte_meter_trtcm_rfc4115_config(&meters->at.rfc4115[at], &meters->profile.rfc4115);
	if (status == 0)
		return meters;
	rte_shim_meters_free(meters);
	return NULL;
}

#define COLOUR(kind, check)                                                                                          \
	for (size_t packet = 0; packet < count; packet++)                                                            \
		colours[packet] = check(&meters->at.kind[order[packet]], &meters->profile.kind, now, octets)

/* A packet of so many octets for each of these meters: 0 is green, 1 yellow, 2 red. */
void rte_shim_meters_colour(struct meters *meters, const size_t *order, size_t count, uint32_t octets, uint64_t now,
	uint8_t *colours)
{
	switch (meters->kind) {
	case RFC2697:
		COLOUR(rfc2697, rte_meter_srtcm_color_blind_check);
		break;
	case RFC2698:
		COLOUR(rfc2698, rte_meter_trtcm_color_blind_check);
		break;
	case RFC4115:
		COLOUR(rfc4115, rte_meter_trtcm_rfc4115_color_blind_check);
		break;
	}
}

uint64_t rte_shim_cycles(void)
{
	return rte_get_tsc_cycles();
}
