/* What the shims share. */
#ifndef RTE_SHIM_H
#define RTE_SHIM_H

/* What DPDK calls the NUMA node of the heap of 2 MiB pages; any until it is there. */
extern int rte_shim_socket;

#endif
