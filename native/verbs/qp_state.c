/* SPDX-License-Identifier: MIT
 *
 * The state table of queue pairs: which transitions exist, which attributes they need, which they may have besides
 * (IBA 10.3.1 and table 91; ibv_modify_qp(3)). IBV_QP_STATE itself is always there.
 */
#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "verbs/qp.h"

#define ANY_FROM 0xff

struct transition {
	uint8_t type;
	uint8_t from;
	uint8_t to;
	uint32_t required;
	uint32_t optional;
};

enum {
	RC = FFV_QPT_RC, UC = FFV_QPT_UC, UD = FFV_QPT_UD, XS = FFV_QPT_XRC_SEND, XR = FFV_QPT_XRC_RECV,
	RAW = FFV_QPT_RAW_PACKET,
	RESET = FFV_QPS_RESET, INIT = FFV_QPS_INIT, RTR = FFV_QPS_RTR, RTS = FFV_QPS_RTS, SQD = FFV_QPS_SQD,
	SQE = FFV_QPS_SQE, ERR = FFV_QPS_ERR,
	CUR = FFV_QP_CUR_STATE, NOTIFY = FFV_QP_EN_SQD_ASYNC_NOTIFY, ACCESS = FFV_QP_ACCESS_FLAGS,
	PKEY = FFV_QP_PKEY_INDEX, PORT = FFV_QP_PORT, QKEY = FFV_QP_QKEY, AV = FFV_QP_AV, MTU = FFV_QP_PATH_MTU,
	TIMEOUT = FFV_QP_TIMEOUT, RETRY = FFV_QP_RETRY_CNT, RNR = FFV_QP_RNR_RETRY, RQ_PSN = FFV_QP_RQ_PSN,
	RD = FFV_QP_MAX_QP_RD_ATOMIC, ALT = FFV_QP_ALT_PATH, RNR_TIMER = FFV_QP_MIN_RNR_TIMER, SQ_PSN = FFV_QP_SQ_PSN,
	DEST_RD = FFV_QP_MAX_DEST_RD_ATOMIC, MIG = FFV_QP_PATH_MIG_STATE, DEST = FFV_QP_DEST_QPN,
};

static const struct transition transitions[] = {
	{ RC, RESET, INIT, PKEY | PORT | ACCESS, 0 },
	{ UC, RESET, INIT, PKEY | PORT | ACCESS, 0 },
	{ UD, RESET, INIT, PKEY | PORT | QKEY, 0 },
	{ RC, INIT, INIT, 0, PKEY | PORT | ACCESS },
	{ UC, INIT, INIT, 0, PKEY | PORT | ACCESS },
	{ UD, INIT, INIT, 0, PKEY | PORT | QKEY },
	{ RC, INIT, RTR, AV | MTU | DEST | RQ_PSN | DEST_RD | RNR_TIMER, ALT | ACCESS | PKEY },
	{ UC, INIT, RTR, AV | MTU | DEST | RQ_PSN, ALT | ACCESS | PKEY },
	{ UD, INIT, RTR, 0, PKEY | QKEY },
	{ RC, RTR, RTS, TIMEOUT | RETRY | RNR | SQ_PSN | RD, CUR | ALT | ACCESS | RNR_TIMER | MIG },
	{ UC, RTR, RTS, SQ_PSN, CUR | ALT | ACCESS | MIG },
	{ UD, RTR, RTS, SQ_PSN, CUR | QKEY },
	{ RC, RTS, RTS, 0, CUR | ACCESS | ALT | MIG | RNR_TIMER },
	{ UC, RTS, RTS, 0, CUR | ACCESS | ALT | MIG },
	{ UD, RTS, RTS, 0, CUR | QKEY },
	{ RC, RTS, SQD, 0, NOTIFY },
	{ UC, RTS, SQD, 0, NOTIFY },
	{ UD, RTS, SQD, 0, NOTIFY },
	{ RC, SQD, RTS, 0, CUR | ALT | ACCESS | RNR_TIMER | MIG },
	{ UC, SQD, RTS, 0, CUR | ALT | ACCESS | MIG },
	{ UD, SQD, RTS, 0, CUR | QKEY },
	{ RC, SQD, SQD, 0, PORT | AV | TIMEOUT | RETRY | RNR | RD | DEST_RD | ALT | ACCESS | PKEY | RNR_TIMER | MIG },
	{ UC, SQD, SQD, 0, AV | ALT | ACCESS | PKEY | MIG },
	{ UD, SQD, SQD, 0, PKEY | QKEY },
	{ UC, SQE, RTS, 0, CUR | ACCESS },
	{ UD, SQE, RTS, 0, CUR | QKEY },
	/* Raw packets: not of the specification; as Linux has it. */
	{ RAW, RESET, INIT, PORT, 0 },
	{ RAW, INIT, INIT, 0, 0 },
	{ RAW, INIT, RTR, 0, 0 },
	{ RAW, RTR, RTS, 0, CUR },
	{ RAW, RTS, RTS, 0, CUR },
	{ RAW, RTS, SQD, 0, NOTIFY },
	{ RAW, SQD, RTS, 0, CUR },
	{ RAW, SQD, SQD, 0, 0 },
	/* XRC (IBA annex A14): each side has of RC's attributes what it does. */
	{ XS, RESET, INIT, PKEY | PORT | ACCESS, 0 },
	{ XR, RESET, INIT, PKEY | PORT | ACCESS, 0 },
	{ XS, INIT, INIT, 0, PKEY | PORT | ACCESS },
	{ XR, INIT, INIT, 0, PKEY | PORT | ACCESS },
	{ XS, INIT, RTR, AV | MTU | DEST | RQ_PSN, ALT | ACCESS | PKEY },
	{ XR, INIT, RTR, AV | MTU | DEST | RQ_PSN | DEST_RD | RNR_TIMER, ALT | ACCESS | PKEY },
	{ XS, RTR, RTS, TIMEOUT | RETRY | RNR | SQ_PSN | RD, CUR | ALT | ACCESS | MIG },
	{ XR, RTR, RTS, TIMEOUT | SQ_PSN, CUR | ALT | ACCESS | RNR_TIMER | MIG },
	{ XS, RTS, RTS, 0, CUR | ACCESS | ALT | MIG },
	{ XR, RTS, RTS, 0, CUR | ACCESS | ALT | MIG | RNR_TIMER },
	{ XS, RTS, SQD, 0, NOTIFY },
	{ XR, RTS, SQD, 0, NOTIFY },
	{ XS, SQD, RTS, 0, CUR | ALT | ACCESS | MIG },
	{ XR, SQD, RTS, 0, CUR | ALT | ACCESS | RNR_TIMER | MIG },
	{ XS, SQD, SQD, 0, PORT | AV | TIMEOUT | RETRY | RNR | RD | ALT | ACCESS | PKEY | MIG },
	{ XR, SQD, SQD, 0, PORT | AV | TIMEOUT | DEST_RD | ALT | ACCESS | PKEY | RNR_TIMER | MIG },
};

static const struct { uint32_t bit; const char *name; } attributes[] = {
	{ CUR, "CUR_STATE" }, { NOTIFY, "EN_SQD_ASYNC_NOTIFY" }, { ACCESS, "ACCESS_FLAGS" }, { PKEY, "PKEY_INDEX" },
	{ PORT, "PORT" }, { QKEY, "QKEY" }, { AV, "AV" }, { MTU, "PATH_MTU" }, { TIMEOUT, "TIMEOUT" },
	{ RETRY, "RETRY_CNT" }, { RNR, "RNR_RETRY" }, { RQ_PSN, "RQ_PSN" }, { RD, "MAX_QP_RD_ATOMIC" },
	{ ALT, "ALT_PATH" }, { RNR_TIMER, "MIN_RNR_TIMER" }, { SQ_PSN, "SQ_PSN" }, { DEST_RD, "MAX_DEST_RD_ATOMIC" },
	{ MIG, "PATH_MIG_STATE" }, { FFV_QP_CAP, "CAP" }, { DEST, "DEST_QPN" }, { FFV_QP_RATE_LIMIT, "RATE_LIMIT" },
};

const char *ffv_qp_state_name(uint32_t state)
{
	static const char *const names[] = { "RESET", "INIT", "RTR", "RTS", "SQD", "SQE", "ERR" };

	return state < sizeof names / sizeof names[0] ? names[state] : "UNKNOWN";
}

static const char *first_attribute(uint32_t mask)
{
	for (unsigned i = 0; i < sizeof attributes / sizeof attributes[0]; i++)
		if (mask & attributes[i].bit)
			return attributes[i].name;
	return "an unknown attribute";
}

int ffv_qp_check_transition(uint32_t type, uint32_t from, uint32_t to, uint32_t mask)
{
	const char *from_name = ffv_qp_state_name(from), *to_name = ffv_qp_state_name(to);

	mask &= ~(uint32_t)FFV_QP_STATE;
	if (from == RESET && to == ERR) /* as the kernel's verbs refuse it: there is nothing to flush */
		return ffv_fail(EINVAL, "a queue pair cannot go from %s to %s", from_name, to_name);
	if (to == RESET || to == ERR)
		return mask & ~(uint32_t)CUR ? ffv_fail(EINVAL, "%s to %s takes no attributes, not even %s", from_name,
							to_name, first_attribute(mask & ~(uint32_t)CUR)) : 0;
	for (unsigned i = 0; i < sizeof transitions / sizeof transitions[0]; i++) {
		const struct transition *t = &transitions[i];
		if (t->type != type || t->from != from || t->to != to)
			continue;
		uint32_t missing = t->required & ~mask, surplus = mask & ~(t->required | t->optional);
		if (missing)
			return ffv_fail(EINVAL, "%s to %s needs attribute %s", from_name, to_name,
					first_attribute(missing));
		if (surplus)
			return ffv_fail(EINVAL, "%s to %s does not take attribute %s", from_name, to_name,
					first_attribute(surplus));
		return 0;
	}
	return ffv_fail(EINVAL, "a queue pair of this type cannot go from %s to %s", from_name, to_name);
}
