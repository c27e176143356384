/* The table of state transitions: every pair of states of every type, every attribute missing and every one too many
 * (IBA 10.3.1, table 91). What is legal is written down here a second time, by hand. */
#include <errno.h>

#include "opened.h"
#include "verbs/qp.h"

enum { RESET, INIT, RTR, RTS, SQD, SQE, ERR, STATES };

struct legal { int from; int to; uint32_t required[11]; uint32_t optional[11]; }; /* by type: RC 2, UC 3, UD 4 */

#define NO UINT32_MAX /* not a transition of this type */
#define CUR FFV_QP_CUR_STATE
#define PKEY FFV_QP_PKEY_INDEX
#define PORT FFV_QP_PORT
#define ACCESS FFV_QP_ACCESS_FLAGS
#define QKEY FFV_QP_QKEY
#define PATH (FFV_QP_AV | FFV_QP_PATH_MTU | FFV_QP_DEST_QPN | FFV_QP_RQ_PSN)
#define ALT FFV_QP_ALT_PATH
#define MIG FFV_QP_PATH_MIG_STATE
#define RNR_TIMER FFV_QP_MIN_RNR_TIMER
#define RETRIES (FFV_QP_TIMEOUT | FFV_QP_RETRY_CNT | FFV_QP_RNR_RETRY)

static const struct legal legal[] = {
	{ RESET, INIT, { NO, NO, PKEY | PORT | ACCESS, PKEY | PORT | ACCESS, PKEY | PORT | QKEY }, { 0 } },
	{ INIT, INIT, { NO, NO, 0, 0, 0 }, { 0, 0, PKEY | PORT | ACCESS, PKEY | PORT | ACCESS, PKEY | PORT | QKEY } },
	{ INIT, RTR, { NO, NO, PATH | FFV_QP_MAX_DEST_RD_ATOMIC | RNR_TIMER, PATH, 0 },
	  { 0, 0, ALT | ACCESS | PKEY, ALT | ACCESS | PKEY, PKEY | QKEY } },
	{ RTR, RTS, { NO, NO, FFV_QP_SQ_PSN | RETRIES | FFV_QP_MAX_QP_RD_ATOMIC, FFV_QP_SQ_PSN, FFV_QP_SQ_PSN },
	  { 0, 0, CUR | ALT | ACCESS | RNR_TIMER | MIG, CUR | ALT | ACCESS | MIG, CUR | QKEY } },
	{ RTS, RTS, { NO, NO, 0, 0, 0 },
	  { 0, 0, CUR | ACCESS | ALT | MIG | RNR_TIMER, CUR | ACCESS | ALT | MIG, CUR | QKEY } },
	{ RTS, SQD, { NO, NO, 0, 0, 0 },
	  { 0, 0, FFV_QP_EN_SQD_ASYNC_NOTIFY, FFV_QP_EN_SQD_ASYNC_NOTIFY, FFV_QP_EN_SQD_ASYNC_NOTIFY } },
	{ SQD, RTS, { NO, NO, 0, 0, 0 },
	  { 0, 0, CUR | ALT | ACCESS | RNR_TIMER | MIG, CUR | ALT | ACCESS | MIG, CUR | QKEY } },
	{ SQD, SQD, { NO, NO, 0, 0, 0 },
	  { 0, 0, PORT | FFV_QP_AV | RETRIES | FFV_QP_MAX_QP_RD_ATOMIC | FFV_QP_MAX_DEST_RD_ATOMIC | ALT | ACCESS |
	    PKEY | RNR_TIMER | MIG, FFV_QP_AV | ALT | ACCESS | PKEY | MIG, PKEY | QKEY } },
	{ SQE, RTS, { NO, NO, NO, 0, 0 }, { 0, 0, 0, CUR | ACCESS, CUR | QKEY } },
};

/* XRC_SEND 9, XRC_RECV 10: what RC has, shared between the two. */
static const struct legal legal_xrc[] = {
	{ RESET, INIT, { [9] = PKEY | PORT | ACCESS, [10] = PKEY | PORT | ACCESS }, { 0 } },
	{ INIT, INIT, { 0 }, { [9] = PKEY | PORT | ACCESS, [10] = PKEY | PORT | ACCESS } },
	{ INIT, RTR, { [9] = PATH, [10] = PATH | FFV_QP_MAX_DEST_RD_ATOMIC | RNR_TIMER },
	  { [9] = ALT | ACCESS | PKEY, [10] = ALT | ACCESS | PKEY } },
	{ RTR, RTS, { [9] = FFV_QP_SQ_PSN | RETRIES | FFV_QP_MAX_QP_RD_ATOMIC, [10] = FFV_QP_SQ_PSN | FFV_QP_TIMEOUT },
	  { [9] = CUR | ALT | ACCESS | MIG, [10] = CUR | ALT | ACCESS | RNR_TIMER | MIG } },
	{ RTS, RTS, { 0 }, { [9] = CUR | ACCESS | ALT | MIG, [10] = CUR | ACCESS | ALT | MIG | RNR_TIMER } },
	{ RTS, SQD, { 0 }, { [9] = FFV_QP_EN_SQD_ASYNC_NOTIFY, [10] = FFV_QP_EN_SQD_ASYNC_NOTIFY } },
	{ SQD, RTS, { 0 }, { [9] = CUR | ALT | ACCESS | MIG, [10] = CUR | ALT | ACCESS | RNR_TIMER | MIG } },
	{ SQD, SQD, { 0 },
	  { [9] = PORT | FFV_QP_AV | RETRIES | FFV_QP_MAX_QP_RD_ATOMIC | ALT | ACCESS | PKEY | MIG,
	    [10] = PORT | FFV_QP_AV | FFV_QP_TIMEOUT | FFV_QP_MAX_DEST_RD_ATOMIC | ALT | ACCESS | PKEY | RNR_TIMER | MIG } },
};

static const struct legal *find(int from, int to, uint32_t type)
{
	for (size_t i = 0; type >= FFV_QPT_XRC_SEND && i < sizeof legal_xrc / sizeof legal_xrc[0]; i++)
		if (legal_xrc[i].from == from && legal_xrc[i].to == to)
			return &legal_xrc[i];
	for (size_t i = 0; type <= FFV_QPT_UD && i < sizeof legal / sizeof legal[0]; i++)
		if (legal[i].from == from && legal[i].to == to && legal[i].required[type] != NO)
			return &legal[i];
	return NULL;
}

static void check_attributes(uint32_t type, const struct legal *it)
{
	uint32_t required = it->required[type], allowed = required | it->optional[type];
	uint32_t from = (uint32_t)it->from, to = (uint32_t)it->to;

	CHECK_OK(ffv_qp_check_transition(type, from, to, FFV_QP_STATE | required));
	CHECK_OK(ffv_qp_check_transition(type, from, to, FFV_QP_STATE | allowed));
	for (unsigned bit = 1; bit < 32; bit++) { /* bit 0: the state itself */
		uint32_t one = 1u << bit;
		if (required & one)
			CHECK_FAIL(ffv_qp_check_transition(type, from, to, FFV_QP_STATE | (allowed & ~one)), EINVAL,
				   "needs attribute");
		if (!(allowed & one))
			CHECK_FAIL(ffv_qp_check_transition(type, from, to, FFV_QP_STATE | required | one), EINVAL,
				   "does not take attribute");
		else
			CHECK_OK(ffv_qp_check_transition(type, from, to, FFV_QP_STATE | required | one));
	}
}

static void test_every_pair(void)
{
	for (uint32_t type = FFV_QPT_RC; type <= FFV_QPT_XRC_RECV; type++) {
		if (type > FFV_QPT_UD && type < FFV_QPT_XRC_SEND)
			continue;
		for (int from = 0; from < STATES; from++) {
			for (int to = 0; to < STATES; to++) {
				const struct legal *it = find(from, to, type);
				if (from == RESET && to == ERR) {
					CHECK_FAIL(ffv_qp_check_transition(type, RESET, ERR, FFV_QP_STATE), EINVAL,
						   "cannot go from RESET to ERR");
				} else if (to == RESET || to == ERR) {
					CHECK_OK(ffv_qp_check_transition(type, (uint32_t)from, (uint32_t)to,
									 FFV_QP_STATE));
					CHECK_FAIL(ffv_qp_check_transition(type, (uint32_t)from, (uint32_t)to,
									   FFV_QP_STATE | FFV_QP_QKEY), EINVAL,
						   "takes no attributes");
				} else if (it) {
					check_attributes(type, it);
				} else {
					CHECK_FAIL(ffv_qp_check_transition(type, (uint32_t)from, (uint32_t)to,
									   FFV_QP_STATE), EINVAL, "cannot go from");
				}
			}
		}
	}
}

static void test_names(void)
{
	CHECK_STR(ffv_qp_state_name(FFV_QPS_RESET), "RESET");
	CHECK_STR(ffv_qp_state_name(FFV_QPS_SQE), "SQE");
	CHECK_STR(ffv_qp_state_name(FFV_QPS_ERR), "ERR");
	CHECK_STR(ffv_qp_state_name(1000), "UNKNOWN");
}

int main(void)
{
	test_every_pair();
	test_names();
	return 0;
}
