/* SPDX-License-Identifier: MIT
 *
 * What the C benchmarks of the engine share: errors end the program, and a queue pair is connected. Public header alone.
 */
#ifndef FFVERBS_BENCHMARKS_FFV_ENDS_H
#define FFVERBS_BENCHMARKS_FFV_ENDS_H

#include <ffverbs/ffv.h>

#include "common.h"

static inline void check_ffv(int rc, const char *what)
{
	if (rc >= 0)
		return;
	fprintf(stderr, "%s: %s (%s)\n", what, strerror(-rc), ffv_error_text());
	exit(1);
}

/* Connects a queue pair, which may be written to. */
static inline void to_rts(struct ffv_qp *qp, const struct ffv_gid *gid, uint32_t qp_num)
{
	struct ffv_qp_attr attr = { .qp_state = FFV_QPS_INIT, .port_num = 1,
				    .qp_access_flags = FFV_ACCESS_LOCAL_WRITE | FFV_ACCESS_REMOTE_WRITE };

	check_ffv(ffv_modify_qp(qp, &attr, FFV_QP_STATE | FFV_QP_PKEY_INDEX | FFV_QP_PORT | FFV_QP_ACCESS_FLAGS),
		  "ffv_modify_qp to INIT");
	attr = (struct ffv_qp_attr){ .qp_state = FFV_QPS_RTR, .path_mtu = 5, .dest_qp_num = qp_num,
				     .max_dest_rd_atomic = 1, .min_rnr_timer = 12 };
	attr.ah_attr.is_global = 1;
	attr.ah_attr.port_num = 1;
	attr.ah_attr.grh.hop_limit = 1;
	attr.ah_attr.grh.sgid_index = 1;
	memcpy(&attr.ah_attr.grh.dgid_subnet_prefix_be, gid->raw, 8);
	memcpy(&attr.ah_attr.grh.dgid_interface_id_be, gid->raw + 8, 8);
	check_ffv(ffv_modify_qp(qp, &attr,
				FFV_QP_STATE | FFV_QP_AV | FFV_QP_PATH_MTU | FFV_QP_DEST_QPN | FFV_QP_RQ_PSN |
					FFV_QP_MAX_DEST_RD_ATOMIC | FFV_QP_MIN_RNR_TIMER),
		  "ffv_modify_qp to RTR");
	attr = (struct ffv_qp_attr){ .qp_state = FFV_QPS_RTS, .timeout = 14, .retry_cnt = 7, .rnr_retry = 7,
				     .max_rd_atomic = 1 };
	check_ffv(ffv_modify_qp(qp, &attr,
				FFV_QP_STATE | FFV_QP_TIMEOUT | FFV_QP_RETRY_CNT | FFV_QP_RNR_RETRY | FFV_QP_SQ_PSN |
					FFV_QP_MAX_QP_RD_ATOMIC),
		  "ffv_modify_qp to RTS");
}

#endif
