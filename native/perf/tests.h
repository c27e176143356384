/* SPDX-License-Identifier: MIT
 *
 * What a test is made of: see perf_run.c for the table. Each function does `count` iterations of one end; samples (may
 * be NULL, latency clients only) gets the ticks of each. 0 or -errno with its text set.
 */
#ifndef FFV_PERF_TESTS_H
#define FFV_PERF_TESTS_H

#include "perf/loop.h"

typedef int perf_end(struct loop *loop, uint64_t count, uint64_t *samples);

perf_end send_latency_client, send_latency_server;
perf_end write_latency_client, write_latency_server;
perf_end read_latency_client, atomic_latency_client;
perf_end send_bandwidth_client, send_bandwidth_server;
perf_end write_bandwidth_client, write_bandwidth_server;
perf_end read_bandwidth_client;

#endif
