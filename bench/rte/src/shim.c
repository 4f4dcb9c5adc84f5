/*
 * What only DPDK's headers know: structures that differ between its releases, and how to start it.
 *
 * DPDK runs without a NIC, without hugetlbfs and without files. Its tables are in a heap of their own, of ordinary memory
 * that the kernel is asked to make of 2 MiB pages, so that they have what they would have in production.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_fib.h>
#include <rte_fib6.h>
#include <rte_malloc.h>
#include "shim.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

#define PAGE (2ul << 20)
#define HEAP "tables"

int rte_shim_socket = SOCKET_ID_ANY;

static int make_heap(size_t octets)
{
	char *start = mmap(NULL, octets + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (start == MAP_FAILED)
		return -ENOMEM;
	start = (char *)(((uintptr_t)start + PAGE - 1) & ~(PAGE - 1));
	/* All of it now, so that no page fault is counted against DPDK later. */
	madvise(start, octets, MADV_HUGEPAGE);
	if (madvise(start, octets, MADV_POPULATE_WRITE) != 0)
		return -ENOMEM;
	/* What did not get them at once, for want of 2 MiB in a row, tries again. */
	madvise(start, octets, MADV_COLLAPSE);

	size_t pages = octets / PAGE;
	rte_iova_t *addresses = calloc(pages, sizeof(*addresses));
	if (addresses == NULL)
		return -ENOMEM;
	for (size_t page = 0; page < pages; page++)
		addresses[page] = (uintptr_t)start + page * PAGE;
	int status = rte_malloc_heap_create(HEAP);
	if (status == 0)
		status = rte_malloc_heap_memory_add(HEAP, start, octets, addresses, pages, PAGE);
	free(addresses);
	if (status != 0)
		return -rte_errno;
	rte_shim_socket = rte_malloc_heap_get_socket(HEAP);
	return rte_shim_socket < 0 ? -rte_errno : 0;
}

int rte_shim_start(unsigned int cpu, unsigned int heap_mib)
{
	char cpus[16];
	snprintf(cpus, sizeof(cpus), "%u", cpu);
	/* Without the wider vectors the AVX-512 lookups cannot be chosen; the scalar ones are not touched by it. */
	char *arguments[] = {
		"rte", "--no-huge", "-m", "64", "-l", cpus, "--no-pci", "--no-shconf", "--no-telemetry", "--iova-mode=va",
		"--log-level=critical", "--force-max-simd-bitwidth=512",
	};
	int status = rte_eal_init(sizeof(arguments) / sizeof(*arguments), arguments);
	return status < 0 ? -rte_errno : make_heap((size_t)heap_mib << 20);
}

/* `width` is the octets of a table's entry, and 2 to its power is what DPDK counts in. */
struct rte_fib *rte_shim_fib_new(const char *name, int routes, unsigned int tbl8, int width)
{
	struct rte_fib_conf conf = {
		.type = RTE_FIB_DIR24_8,
		.max_routes = routes,
		.dir24_8 = { .nh_sz = width == 2 ? RTE_FIB_DIR24_8_2B : RTE_FIB_DIR24_8_4B, .num_tbl8 = tbl8 },
	};
	return rte_fib_create(name, rte_shim_socket, &conf);
}

struct rte_fib6 *rte_shim_fib6_new(const char *name, int routes, unsigned int tbl8, int width)
{
	struct rte_fib6_conf conf = {
		.type = RTE_FIB6_TRIE,
		.max_routes = routes,
		.trie = { .nh_sz = width == 2 ? RTE_FIB6_TRIE_2B : RTE_FIB6_TRIE_4B, .num_tbl8 = tbl8 },
	};
	return rte_fib6_create(name, rte_shim_socket, &conf);
}

int rte_shim_fib_select(struct rte_fib *fib, int vector)
{
	return rte_fib_select_lookup(fib,
		vector ? RTE_FIB_LOOKUP_DIR24_8_VECTOR_AVX512 : RTE_FIB_LOOKUP_DIR24_8_SCALAR_MACRO);
}

int rte_shim_fib6_select(struct rte_fib6 *fib, int vector)
{
	return rte_fib6_select_lookup(fib,
		vector ? RTE_FIB6_LOOKUP_TRIE_VECTOR_AVX512 : RTE_FIB6_LOOKUP_TRIE_SCALAR);
}
