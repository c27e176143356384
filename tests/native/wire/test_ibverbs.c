/* What wire/ibverbs.h declares of libibverbs is what its own headers say, where these are installed; and without the
 * library, or with a wrong one, there is one line about it. */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ffverbs/ffv_router.h>

#include "check.h"
#include "wire/ibverbs.h"
#include "wire/rdma_device.h"

#if HAVE_LIBIBVERBS
#include <infiniband/verbs.h>

#define SAME_SIZE(ours, theirs) _Static_assert(sizeof(struct ours) == sizeof(struct theirs), #ours)
#define SAME_PLACE(ours, theirs, member, their_member) \
	_Static_assert(offsetof(struct ours, member) == offsetof(struct theirs, their_member), #ours "." #member)
#define SAME(ours, theirs, member) SAME_PLACE(ours, theirs, member, member)

SAME_PLACE(real_context, ibv_context, poll_cq, ops.poll_cq);
SAME_PLACE(real_context, ibv_context, req_notify_cq, ops.req_notify_cq);
SAME_PLACE(real_context, ibv_context, post_send, ops.post_send);
SAME_PLACE(real_context, ibv_context, post_recv, ops.post_recv);
SAME(real_context, ibv_context, async_fd);
SAME(real_comp_channel, ibv_comp_channel, fd);
SAME(real_mr, ibv_mr, addr);
SAME(real_mr, ibv_mr, length);
SAME(real_mr, ibv_mr, lkey);
SAME(real_mr, ibv_mr, rkey);
SAME(real_qp, ibv_qp, qp_num);
SAME(real_port_attr, ibv_port_attr, state);
SAME(real_port_attr, ibv_port_attr, active_mtu);
SAME(real_port_attr, ibv_port_attr, gid_tbl_len);
SAME(real_port_attr, ibv_port_attr, lid);
SAME(real_port_attr, ibv_port_attr, link_layer);
_Static_assert(sizeof(struct real_port_attr) >= sizeof(struct ibv_port_attr), "room for all that is written");
SAME_SIZE(real_gid_entry, ibv_gid_entry);
SAME(real_gid_entry, ibv_gid_entry, gid_type);
SAME_SIZE(real_ah_attr, ibv_ah_attr);
SAME_PLACE(real_ah_attr, ibv_ah_attr, dgid, grh.dgid);
SAME_PLACE(real_ah_attr, ibv_ah_attr, sgid_index, grh.sgid_index);
SAME_PLACE(real_ah_attr, ibv_ah_attr, hop_limit, grh.hop_limit);
SAME(real_ah_attr, ibv_ah_attr, dlid);
SAME(real_ah_attr, ibv_ah_attr, is_global);
SAME(real_ah_attr, ibv_ah_attr, port_num);
SAME_SIZE(real_qp_init_attr, ibv_qp_init_attr);
SAME(real_qp_init_attr, ibv_qp_init_attr, recv_cq);
SAME(real_qp_init_attr, ibv_qp_init_attr, cap);
SAME(real_qp_init_attr, ibv_qp_init_attr, qp_type);
SAME_SIZE(real_qp_attr, ibv_qp_attr);
SAME(real_qp_attr, ibv_qp_attr, qp_access_flags);
SAME(real_qp_attr, ibv_qp_attr, dest_qp_num);
SAME(real_qp_attr, ibv_qp_attr, ah_attr);
SAME(real_qp_attr, ibv_qp_attr, port_num);
SAME(real_qp_attr, ibv_qp_attr, rnr_retry);
SAME(real_qp_attr, ibv_qp_attr, min_rnr_timer);
SAME_SIZE(real_async_event, ibv_async_event);
SAME(real_async_event, ibv_async_event, event_type);
#define SAME_VALUE(ours, theirs) _Static_assert((int)(ours) == (int)(theirs), #ours)
SAME_VALUE(REAL_EVENT_DEVICE_FATAL, IBV_EVENT_DEVICE_FATAL);
SAME_VALUE(REAL_EVENT_PORT_ERR, IBV_EVENT_PORT_ERR);
SAME_VALUE(REAL_EVENT_QP_FATAL, IBV_EVENT_QP_FATAL);
SAME_VALUE(REAL_EVENT_QP_REQ_ERR, IBV_EVENT_QP_REQ_ERR);
SAME_VALUE(REAL_EVENT_QP_ACCESS_ERR, IBV_EVENT_QP_ACCESS_ERR);
SAME_VALUE(REAL_PORT_ACTIVE, IBV_PORT_ACTIVE);
SAME_VALUE(REAL_LINK_ETHERNET, IBV_LINK_LAYER_ETHERNET);
SAME_VALUE(REAL_LINK_INFINIBAND, IBV_LINK_LAYER_INFINIBAND);
SAME_VALUE(REAL_GID_ROCE_V2, IBV_GID_TYPE_ROCE_V2);
#endif

static void check_refusal(const char *library, int error, const char *word)
{
	struct ffv_rdma_options options = { .host_address = "192.0.2.1", .gid_index = -1 };
	struct ffv_rdma_device device;

	CHECK_EQ(setenv("FFVERBS_LIBIBVERBS", library, 1), 0);
	CHECK_EQ(ffv_rdma_device_open(&options, &device), -error);
	CHECK(strstr(ffv_error_text(), word));
	CHECK(!strchr(ffv_error_text(), '\n'));
}

int main(void)
{
	check_refusal("/nonexistent/libibverbs.so.1", ENOENT, "install libibverbs1");
	check_refusal("libm.so.6", EOPNOTSUPP, "rdma-core 31 or newer");
	return 0;
}
